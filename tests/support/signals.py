"""Facts as pictures and sound that a program can read back: what a vision or speech model stands in for in a test.

A picture holds a text as black and white squares, a recording as tones of two pitches. They survive JPEG and Opus, so
that a text which comes back was really in what was sent. `model_server` is an OpenAI-compatible endpoint on loopback
that reads both.
"""

import base64
import http.server
import io
import itertools
import json
import math
import struct
import threading
import wave
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

__all__ = ["model_server", "picture_of", "sound_of", "video_of"]

_SQUARE = 8
"""Pixels of a bit's side."""
_HERTZ = 16_000
_BIT_SECONDS = 0.04
_PITCHES = (600, 1_800)


def _bits(text: str) -> list[int]:
    return [byte >> at & 1 for byte in text.encode("ascii") for at in range(8)]


def _text(bits: list[int]) -> str:
    whole = [bits[at : at + 8] for at in range(0, len(bits) - 7, 8)]
    return bytes(sum(bit << at for at, bit in enumerate(byte)) for byte in whole).decode("ascii", errors="replace")


def picture_of(text: str) -> Any:
    """The text as an image: a column of eight squares for each character, white is 1."""
    from PIL import Image

    image = Image.new("RGB", (_SQUARE * len(text), _SQUARE * 8), "black")
    for at, bit in enumerate(_bits(text)):
        if bit:
            x, y = at // 8 * _SQUARE, at % 8 * _SQUARE
            image.paste("white", (x, y, x + _SQUARE, y + _SQUARE))
    return image


def text_in_picture(jpeg: bytes) -> str:
    from PIL import Image

    with Image.open(io.BytesIO(jpeg)) as image:
        grey = image.convert("L")
        places = [
            (x * _SQUARE + _SQUARE // 2, y * _SQUARE + _SQUARE // 2)
            for x in range(grey.width // _SQUARE)
            for y in range(8)
        ]
        return _text([int(grey.getpixel(place) > 127) for place in places]).rstrip("\0")  # type: ignore[operator]


def video_of(text: str, seconds: int = 2) -> bytes:
    """A video that shows `picture_of(text)` all the time."""
    import av

    image = picture_of(text)
    content = io.BytesIO()
    library: Any = av
    with library.open(content, "w", format="matroska") as file:
        stream = file.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = *image.size, "yuv420p", 2_000_000
        for _ in range(seconds * 10):
            file.mux(stream.encode(library.VideoFrame.from_image(image)))
        file.mux(stream.encode(None))
    return content.getvalue()


def sound_of(text: str) -> bytes:
    """The text as a WAV file: a tone for each bit."""
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(_HERTZ)
        for bit in _bits(text):
            tone = (math.sin(2 * math.pi * _PITCHES[bit] * at / _HERTZ) for at in range(int(_BIT_SECONDS * _HERTZ)))
            file.writeframes(b"".join(struct.pack("<h", int(12_000 * each)) for each in tone))
    return content.getvalue()


def text_in_sound(recording: bytes) -> str:
    """Reads the tones by how often they cross zero in the middle of each bit."""
    import av

    library: Any = av
    samples: list[int] = []
    with library.open(io.BytesIO(recording)) as file:
        resampler = library.AudioResampler(format="s16", layout="mono", rate=_HERTZ)
        for frame in file.decode(file.streams.audio[0]):
            for part in resampler.resample(frame):
                samples += struct.unpack(f"<{part.samples}h", bytes(part.planes[0])[: part.samples * 2])
    length = int(_BIT_SECONDS * _HERTZ)
    bits: list[int] = []
    for start in range(0, len(samples) - length // 2, length):
        middle = samples[start + length // 4 : start + 3 * length // 4]
        crossings = sum((a < 0) != (b < 0) for a, b in itertools.pairwise(middle))
        hertz = crossings / 2 / (len(middle) / _HERTZ)
        bits.append(int(hertz > sum(_PITCHES) / 2))
    return _text(bits).rstrip("\0")


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.path.endswith("/chat/completions"):
            parts = json.loads(body)["messages"][0]["content"]
            urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
            seen = {text_in_picture(base64.b64decode(url.partition(",")[2])) for url in urls}
            answer: dict[str, Any] = {"choices": [{"message": {"content": " ".join(sorted(seen))}}]}
        else:
            boundary = self.headers["content-type"].partition("boundary=")[2].encode()
            (part,) = [each for each in body.split(b"--" + boundary) if b"filename=" in each]
            answer = {"text": text_in_sound(part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n"))}
        said = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def model_server() -> Generator[str]:
    """Serve on a free loopback port; yields the base URL."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        finally:
            server.shutdown()
            thread.join()
