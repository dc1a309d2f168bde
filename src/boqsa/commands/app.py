"""`boqsa app [RUN]`: a page in the browser where pictures are dropped and their slots are looked at and edited."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from boqsa.commands.arguments import parse


@dataclass(frozen=True, kw_only=True)
class App:
    """Open a page in the browser: drop a picture, see its slots, take one away, exchange one with another picture's.

    The page can be reached from this machine alone, and pictures do not leave it. Ctrl-C stops it.
    """

    run: tyro.conf.Positional[Annotated[str | None, tyro.conf.arg(metavar="RUN")]] = None
    """Run folder, folder of save_pretrained, or name on the hub (owner/name). Without it: a small model that comes with
    boqsa, trained on rendered scenes."""
    checkpoint: str = "last"
    """last, best_loss or best_<metric>; the last one was chosen by labels."""
    encoder: str | None = None
    """Of a features model: folder of its encoder, where it is not where the run says."""
    device: str = "cpu"
    """Where to compute: cpu, or cuda where there is a GPU."""
    host: str = "127.0.0.1"
    """Address to listen on. 0.0.0.0 lets everyone on the network in."""
    port: int | None = None
    """Port to listen on; by default the first free one from 7860."""
    share: bool = False
    """Ask the servers of Gradio for a public link. Whoever has it can use the page, and pictures pass through them."""
    open: bool = True
    """Open the page in a browser."""


def main(arguments: list[str]) -> int:
    """Entry of the command."""
    chosen = parse(App, arguments, command="app")

    import time

    from boqsa.app.serve import serving
    from boqsa.commands.console import stopped_by_sigterm

    with (
        stopped_by_sigterm(),
        serving(
            chosen.run,
            checkpoint=chosen.checkpoint,
            encoder=chosen.encoder,
            device=chosen.device,
            host=chosen.host,
            port=chosen.port,
            share=chosen.share,
            open_browser=chosen.open,
        ) as address,
    ):
        try:
            print(f"The page is at {address} - Ctrl-C stops it.", flush=True)  # who reads this may stop it at once
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            print("stopped.")
    return 0
