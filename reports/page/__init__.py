"""The report that people look at, listen to and send on: ``report/index.html``, one file that asks nobody for anything.

No server, nothing fetched, readable offline and on a phone. ``docs/report.md`` says what stands where.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from imfbench.reports.page.render import write_page
from imfbench.reports.page.sources import Source, of_run, of_tables

__all__ = ["Page", "Source", "of_run", "of_tables", "write_page"]


class Page:
    """Writes ``report/index.html`` of a run folder; reads results only, computes no score.

    Args:
        config: What goes into the page.
        going: Whether somebody is still at work in the run folder, which the page then says.
    """

    class Config(BaseModel):
        """Settings of ``page``."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        embed: bool = True
        """Sound and spectrograms inside the page; otherwise beside it, in ``report/media/``."""
        megabytes: float = Field(default=16.0, ge=0)
        """The most that sound and spectrograms may take; what does not fit is left out, and the page says so."""
        utterances: int = Field(default=12, ge=0)
        """Utterances of each test set that can be listened to."""
        kilobits: int = Field(default=32, ge=6, le=256)
        """Bit rate of the Opus sound, per second."""
        seed: int = 0
        """Of the choice of random utterances."""

    def __init__(self, config: Config | None = None, going: bool = False) -> None:
        self.config = config or self.Config()
        self.going = going

    def write(self, run: Path) -> list[Path]:
        """Write the page of a run; the same results give the same file.

        Args:
            run: The run folder.

        Returns:
            The files written, the page first.

        Raises:
            RunFolderError: There is nothing to report, or a result file is damaged; the message names it.
            imfbench.schema.SchemaError: Results of a newer schema.
        """
        return write_page(Path(run) / "report", of_run(Path(run), self.going), self.config)
