"""Text on pictures that are no PDF pages, through the Tesseract that pymupdf contains."""

from memento_documents.pdf import import_pymupdf

__all__ = ["recognise"]


def recognise(jpeg: bytes, tessdata: str) -> str:
    """The text on a picture; empty where none is seen. `tessdata` is the folder that `pdf.find_tessdata` found."""
    pymupdf = import_pymupdf()
    try:
        page = pymupdf.Pixmap(jpeg).pdfocr_tobytes(language="eng", tessdata=tessdata)
    except (RuntimeError, ValueError, pymupdf.mupdf.FzErrorBase):
        return ""
    with pymupdf.open(stream=page, filetype="pdf") as document:
        return str(document[0].get_text("text")).strip()
