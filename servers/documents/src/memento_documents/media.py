"""Images, sound and video: what they say about themselves, and the pieces of them that a model is sent.

Owns the limits on pixels and frames, and the making of small JPEG pictures and Opus sound from anything. Pillow reads
images; PyAV (the `media` extra) reads sound and video. Asking a model is `models`' job.
"""

import base64
import io
import math
import struct
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, Literal, cast

from memento_documents import progress
from memento_documents.kinds import Unreadable
from memento_documents.page_ranges import check_region
from memento_documents.reading import Document, Section

__all__ = ["pictures", "read_image", "read_recording", "sound", "view"]

_MAX_PIXELS = 100_000_000
"""A larger image is refused by its header: huge.png has 60,000² pixels in 437 KB."""
_RECOGNISED_PIXELS = 3_000_000
"""What OCR gets to see: a page at about 170 dots per inch."""
_MAX_TAG_CHARS = 1_000
_MAX_DECODED_PER_FRAME = 300
_SOUND_HERTZ = 16_000
_SOUND_BITS_PER_SECOND = 24_000
_EXIF_NAMES = {
    270: "Description", 271: "Camera maker", 272: "Camera", 306: "Date", 315: "Artist", 33432: "Copyright",
    36867: "Taken", 37510: "Comment", 40092: "Comment", 40091: "Title", 40095: "Subject",
}  # fmt: skip
"""EXIF 3.0, table 4 and following."""
_MISSING = "Sound and video need PyAV, which is not installed: pip install 'memento-documents[media]'."


def read_image(file: BinaryIO) -> Document:
    """Return the image's size and metadata, and the text on it where Tesseract's language data is found.

    Raises:
        Unreadable: damaged, too large, or of a format that Pillow does not read.
    """
    with _opened_image(file) as image:
        frames = int(getattr(image, "n_frames", 1))
        lines = [f"{image.format} image, {image.width} × {image.height} pixels, mode {image.mode}"]
        lines += [f"{frames} frames"] if frames > 1 else []
        lines += [f"{name}: {value}" for name, value in _image_tags(image)]
        text, note = _recognised(image)
    blocks = ["\n".join(lines), f"Text on it (OCR):\n{text}" if text else ""]
    notes = [note, "describe_media asks a model what is to be seen."]
    return Document("image", [Section("\n\n".join(filter(None, blocks)) + "\n")], notes=notes)


def read_recording(file: BinaryIO, kind: Literal["audio", "video"]) -> Document:
    """Return length, tracks and tags.

    Raises:
        Unreadable: damaged, or PyAV is not installed.
    """
    with _opened_recording(file) as recording:
        seconds = _seconds(recording)
        lines = [f"{recording.format.long_name or recording.format.name}, {_clock(seconds)}"]
        lines += [_track(stream) for stream in recording.streams]
        tags: dict[str, str] = dict(recording.metadata)
        lines += [f"{name.capitalize()}: {_short(value)}" for name, value in tags.items() if _short(value)]
        is_video = any(not _is_cover(stream) for stream in recording.streams.video)
    kind = "video" if is_video else "audio"
    tools = "transcribe_audio turns its speech into text"
    note = f"{tools}; describe_media looks at frames of it." if is_video else f"{tools}."
    return Document(kind, [Section("\n".join(lines) + "\n")], title=tags.get("title"), notes=[note])


def pictures(
    file: BinaryIO, kind: str, count: int, start_seconds: float, end_seconds: float | None, max_pixels: int
) -> dict[str, Any]:
    """At most `count` pictures to send to a model: one of an image, several evenly spaced of an animation or a video.

    Returns `{"pictures": [{"jpeg": base64, "seconds": float | None, "width": int, "height": int}], "facts": str,
    "total": seconds of a video, or frames of an image}`.

    Raises:
        Unreadable: no pictures in it, damaged, or too large.
    """
    if kind == "image":
        facts = read_image(file).sections[0].text
        with _opened_image(file) as image:
            frames = int(getattr(image, "n_frames", 1))
            wanted = sorted({frames * at // count for at in range(count)}) if frames > 1 else [0]
            sent: list[dict[str, Any]] = []
            for at in wanted:
                sent.append(_sent(_frame(image, at), None, max_pixels))
                progress.report(len(sent), len(wanted), "frame")
            return {"pictures": sent, "facts": facts, "total": frames}
    facts = read_recording(file, "video").sections[0].text
    with _opened_recording(file) as recording:
        if not recording.streams.video:
            raise Unreadable("This is a sound recording; transcribe_audio is the tool for it.")
        total = _seconds(recording)
        end = total if end_seconds is None else end_seconds
        taken: list[dict[str, Any]] = []
        for at, image in _frames_at(recording, start_seconds, end, count):
            taken.append(_sent(image, at, max_pixels))
            progress.report(len(taken), count, "frame")
    if not taken:
        raise Unreadable("No frame of the video can be decoded between those times.")
    return {"pictures": taken, "facts": facts, "total": round(total, 2)}


def view(file: BinaryIO, frame: int, region: list[float] | None, max_pixels: int) -> dict[str, Any]:
    """One frame of an image (a page of a TIFF; 1-based), or the `region` of it, at most `max_pixels` large.

    Returns {data, mime_type, width, height, pages} as `pdf_pages.page_picture` does.

    Raises:
        Unreadable: damaged, too large, no such frame, or the region is empty.
    """
    if region is not None:
        check_region(region)
    with _opened_image(file) as image:
        frames = int(getattr(image, "n_frames", 1))
        if not 1 <= frame <= frames:
            raise Unreadable(f"There is no page {frame} here: the image has pages 1-{frames}.")
        shown = _frame(image, frame - 1)
        if shown.width * shown.height > _MAX_PIXELS:  # a frame may be larger than the first
            raise Unreadable(f"Page {frame} has {shown.width} × {shown.height} pixels; that is not opened.")
        if region is not None:
            shown = _upright(shown)
            x0, y0, x1, y1 = region
            left, upper = int(x0 * shown.width), int(y0 * shown.height)
            right, lower = math.ceil(x1 * shown.width), math.ceil(y1 * shown.height)
            shown = shown.crop((left, upper, right, lower))
        jpeg, width, height = _jpeg(shown, max_pixels)
    return {
        "data": base64.b64encode(jpeg).decode(),
        "mime_type": "image/jpeg",
        "width": width,
        "height": height,
        "pages": frames,
    }


def sound(file: BinaryIO, start_seconds: float, length_seconds: float) -> dict[str, Any]:
    """A stretch of a recording's sound as Ogg Opus, 16 kHz mono, which is what a transcription service wants.

    Returns `{"ogg": base64, "total_seconds": float, "start_seconds": float, "end_seconds": float}`; an empty `ogg`
    means that there is no sound after `start_seconds`.

    Raises:
        Unreadable: no sound in it, or damaged.
    """
    with _opened_recording(file) as recording:
        if not recording.streams.audio:
            raise Unreadable("There is no sound in it.")
        import av

        track = recording.streams.audio[0]
        total = _seconds(recording)
        if start_seconds:
            recording.seek(int(start_seconds * 1_000_000))
        content = io.BytesIO()
        end = start_seconds
        with cast(Any, av.open(content, "w", format="ogg")) as written:
            stream = written.add_stream("libopus", rate=_SOUND_HERTZ)
            stream.bit_rate = _SOUND_BITS_PER_SECOND
            stream.layout = "mono"
            resampler = av.AudioResampler(format="s16", layout="mono", rate=_SOUND_HERTZ)
            for frame in _decoded(recording, track):
                at = float(frame.time or 0.0)
                if at < start_seconds:
                    continue
                if at >= start_seconds + length_seconds:
                    break
                end = at + frame.samples / frame.sample_rate
                frame.pts = None  # the copy begins at zero
                for resampled in resampler.resample(frame):
                    written.mux(stream.encode(resampled))
            for resampled in resampler.resample(None) if end > start_seconds else ():
                written.mux(stream.encode(resampled))
            written.mux(stream.encode(None))
    ogg = base64.b64encode(content.getvalue()).decode() if end > start_seconds else ""
    return {"ogg": ogg, "total_seconds": max(total, end), "start_seconds": start_seconds, "end_seconds": end}


@contextmanager
def _opened_image(file: BinaryIO) -> Generator[Any]:
    import warnings

    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None  # our own limit, with our own words
    file.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(file) as image:
                if image.width * image.height > _MAX_PIXELS:
                    raise Unreadable(
                        f"The image has {image.width} × {image.height} pixels; over {_MAX_PIXELS // 1_000_000} million "
                        "are not opened."
                    )
                yield image
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError) as exc:
        raise Unreadable(f"The image is damaged or of an unknown format ({type(exc).__name__}).") from exc


def _image_tags(image: Any) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    exif = image.getexif()
    pairs = [(_EXIF_NAMES.get(tag), value) for tag, value in [*exif.items(), *exif.get_ifd(0x8769).items()]]
    pairs += [(str(name), value) for name, value in image.info.items() if isinstance(value, str)]
    position = _position(exif.get_ifd(0x8825))
    for name, value in [*pairs, ("Position", position)]:
        text = _short(value)
        if name and text and name not in ("XML:com.adobe.xmp",) and f"{name}{text}" not in seen:
            seen.add(f"{name}{text}")
            yield name, text


def _position(gps: dict[int, Any]) -> str:
    try:
        latitude, longitude = (float(d) + float(m) / 60 + float(s) / 3600 for d, m, s in (gps[2], gps[4]))
        south, west = str(gps.get(1, "N")).startswith("S"), str(gps.get(3, "E")).startswith("W")
        return f"{-latitude if south else latitude:.5f}, {-longitude if west else longitude:.5f}"
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return ""


def _short(value: object) -> str:
    if isinstance(value, bytes):
        value = value.removeprefix(b"ASCII\0\0\0").decode("utf-8", errors="ignore")
    return " ".join(str(value).replace("\x00", "").split())[:_MAX_TAG_CHARS] if value is not None else ""


def _recognised(image: Any) -> tuple[str, str]:
    """The text that Tesseract sees, and a line on how that went."""
    from memento_documents.ocr import recognise
    from memento_documents.pdf import find_tessdata

    folder = find_tessdata()
    if folder is None:
        return (
            "",
            "No OCR: no Tesseract language data is installed (Debian: tesseract-ocr-eng).",
        )
    text = recognise(_jpeg(image, _RECOGNISED_PIXELS)[0], folder)
    return text, "Text by OCR; it may hold mistakes." if text else "OCR saw no text on it."


def _frame(image: Any, at: int) -> Any:
    image.seek(at)
    return image


def _upright(image: Any) -> Any:
    """The image as a viewer shows it: a camera held sideways only notes in the EXIF data how to turn its pictures."""
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(image)
    except (OSError, ValueError, SyntaxError, KeyError, TypeError, struct.error):
        return image  # its EXIF data is damaged; the picture need not be


def _jpeg(image: Any, max_pixels: int) -> tuple[bytes, int, int]:
    """The image as JPEG of at most `max_pixels`, its width and its height."""
    scale = min(1.0, (max_pixels / (image.width * image.height)) ** 0.5)
    size = (max(1, int(image.width * scale)), max(1, int(image.height * scale)))
    image.draft("RGB", size)  # a JPEG is then decoded small
    picture = image.convert("RGBA") if image.mode in ("P", "LA", "PA", "RGBA") else image.convert("RGB")
    picture.thumbnail(size)
    picture = _upright(picture)
    if picture.mode == "RGBA":
        from PIL import Image

        paper = Image.new("RGB", picture.size, "white")
        paper.paste(picture, mask=picture.getchannel("A"))
        picture = paper
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=85)
    return content.getvalue(), picture.width, picture.height


def _sent(image: Any, seconds: float | None, max_pixels: int) -> dict[str, Any]:
    jpeg = _jpeg(image, max_pixels)[0]
    return {"jpeg": base64.b64encode(jpeg).decode(), "seconds": seconds, "width": image.width, "height": image.height}


@contextmanager
def _opened_recording(file: BinaryIO) -> Generator[Any]:
    try:
        import av
        import av.error
        import av.logging
    except ImportError as exc:
        raise Unreadable(_MISSING) from exc
    av.logging.set_level(None)
    file.seek(0)
    try:
        # No protocol but the open file: a playlist cannot make FFmpeg open another file or an address.
        options = {"protocol_whitelist": "", "enable_drefs": "0", "use_absolute_path": "0"}
        with cast(Any, av).open(file, "r", options=options, metadata_errors="replace") as recording:
            for stream in recording.streams:
                if stream.type in ("audio", "video"):
                    stream.codec_context.thread_count = 1
            yield recording
    except (av.error.FFmpegError, ValueError, OSError) as exc:
        raise Unreadable(f"The recording is damaged or of an unknown format ({type(exc).__name__}).") from exc


def _decoded(recording: Any, track: Any) -> Iterator[Any]:
    """Frames of a track up to where it is damaged."""
    import av.error

    for packet in recording.demux(track):
        try:
            yield from packet.decode()
        except av.error.InvalidDataError:
            continue  # a damaged packet; the next may be whole


def _frames_at(recording: Any, start: float, end: float, count: int) -> Iterator[tuple[float, Any]]:
    """`count` frames evenly spaced between two times, each decoded from the key frame before it."""
    track = recording.streams.video[0]
    last = -1.0
    for number in range(count):
        wanted = start + (end - start) * (number + 0.5) / count
        recording.seek(max(0, int(wanted * 1_000_000)))
        chosen = None
        for seen, frame in enumerate(_decoded(recording, track)):
            if frame.width * frame.height > _MAX_PIXELS:
                raise Unreadable(f"The video's frames have {frame.width} × {frame.height} pixels; that is not opened.")
            chosen = frame
            if float(frame.time or 0.0) >= wanted or seen >= _MAX_DECODED_PER_FRAME:
                break
        if chosen is not None and float(chosen.time or 0.0) > last:
            last = float(chosen.time or 0.0)
            yield round(last, 2), chosen.to_image()


def _seconds(recording: Any) -> float:
    if recording.duration:
        return recording.duration / 1_000_000
    lengths = [float(each.duration * each.time_base) for each in recording.streams if each.duration and each.time_base]
    return max(lengths, default=0.0)


def _clock(seconds: float) -> str:
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d} ({seconds:.1f} seconds)"


def _is_cover(stream: Any) -> bool:
    """An MP3's cover picture is a video track of one frame."""
    return stream.frames == 1 or "attached_pic" in str(stream.disposition).lower()


def _track(stream: Any) -> str:
    context = stream.codec_context
    codec = "unknown codec" if context is None else context.name
    language = f", {stream.language}" if stream.language else ""
    if stream.type == "video":
        rate = f", {float(stream.average_rate):.4g} frames a second" if stream.average_rate else ""
        return f"Video: {codec}, {stream.width} × {stream.height} pixels{rate}{language}"
    if stream.type == "audio":
        return f"Audio: {codec}, {stream.rate} Hz, {stream.channels} channels{language}"
    return f"{stream.type.capitalize()}: {codec}{language}"
