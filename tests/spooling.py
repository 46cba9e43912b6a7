"""Usage events and whole spools for tests of the spool, the journal and who reads them."""

import contextlib
import fcntl
from collections.abc import Iterator, Sequence
from pathlib import Path

from billing.meters import Meters, Provenance
from billing.prices import RateCard
from billing.usage import ENCODER, VERSION, UsageEvent
from gateway.stores.spool import LOCK_NAME, Record, frame
from gateway.stores.spool_keeper import SEGMENT_SUFFIX


def event(request_id: str, attempt: int) -> bytes:
    """One packed UsageEvent; only its identity matters."""
    return ENCODER.encode(
        UsageEvent(
            v=VERSION,
            event_id=f"{request_id}:{attempt}",
            request_id=request_id,
            attempt=attempt,
            winner=True,
            tenant_id="ten_1",
            team_path=("team_1",),
            key_id="key_1",
            model="chat",
            backend_id="be_1",
            upstream_model="chat",
            region="eu",
            operation="chat",
            stream=False,
            admitted_at_us=1,
            finished_at_us=2,
            ttft_us=-1,
            duration_us=1,
            usage=Meters(input=1),
            provenance=Provenance.REPORTED,
            reported=None,
            counted=None,
            reasoning=0,
            currency="USD",
            charge_card=RateCard("rc_1", "USD", ()),
            cost_card=None,
            charge_picos=0,
            cost_picos=0,
            counter_nanos=0,
            status=200,
            end_by="upstream",
            end_phase="done",
            tags={},
        )
    )


@contextlib.contextmanager
def living_spool(directory: Path, segments: Sequence[Sequence[Record]]) -> Iterator[Path]:
    """The spool of a writer that lives until the end of the block, with just these segments."""
    writer = directory / "data-0.w_1"
    writer.mkdir(parents=True)
    with (writer / LOCK_NAME).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for number, records in enumerate(segments, 1):
            add_segment(writer, number, records)
        yield writer


def add_segment(writer: Path, number: int, records: Sequence[Record]) -> None:
    content = b"".join(frame(record) for record in records)
    (writer / f"{number:06d}{SEGMENT_SUFFIX}").write_bytes(content)
