"""What the spool of a dead writer says, asked as the product asks it."""

from typing import Final

import msgspec

from billing.usage import DECODER
from gateway.jobs.estimates import Place
from gateway.jobs.evidence import Findings, found_in, unheld_in
from gateway.stores.spooled import open_requests
from tests.simulator import house
from tests.simulator.ledger import Ledger
from tests.simulator.spools import Disk, SpoolFile

PLACES: Final = {id_: Place("eu", "m") for id_ in house.BACKENDS}


def findings(ledger: Ledger, disk: Disk, spool: SpoolFile) -> Findings:
    found = found_in(
        iter([DECODER.decode(packed) for packed in spool.outcomes]),
        open_requests(spool.records),
        PLACES,
        ledger.unbooked,
        proves_absence=disk.proves_absence(spool),
    )
    return msgspec.structs.replace(found, unheld=unheld_in(spool.records))
