"""The public FOCUS validator as a second opinion on our export, in an environment of its own. Its
exit code says 0 whatever it found: its report is read.
"""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.focus_month import every_kind_of_row
from tests.ledger_events import a_ledger
from tests.unit.billing.test_focus import an_invoice, exported

pytestmark = pytest.mark.long

PACKAGES = ("focus-validator==2.2.1", "pyarrow<22")  # newer ones do not go with its numpy
PYTHONS = ("python3.12", "python3.13")
CRITERIA = (
    "UNIT_PRICING_SUPPORTED", "PUBLIC_PRICE_LIST_SUPPORTED", "NEGOTIATED_PRICING_SUPPORTED",
    "USAGE_MEASUREMENT_SUPPORTED", "SUB_ACCOUNT_SUPPORTED", "TAGGING_SUPPORTED",
    "ACCOUNT_NAMING_SUPPORTED", "MULTIPLE_BILLING_ACCOUNT_TYPES_SUPPORTED",
    "MULTIPLE_SUB_ACCOUNT_TYPES_SUPPORTED", "MULTIPLE_PRICING_CATEGORIES_SUPPORTED",
    "COMMITMENT_DISCOUNT_SUPPORTED", "PRICING_BILLING_CURRENCY_DIFFERENCES_SUPPORTED",
    "REGION_SUPPORTED",
)  # fmt: skip
# Its model says of InvoiceId both that it must be null and that it must not, without a condition:
# one of the two always fails, and the rule above them passes. And of CommitmentDiscountStatus that
# where there is no commitment it must be null (C-003), and must not be (C-004): the words of the
# latter say where there is one, its condition where there is none. The rules above it fail with it.
CONTRADICTIONS = {
    "InvoiceId-C-004-C",
    *(f"CommitmentDiscountStatus-C-00{n}-C" for n in (0, 2, 4)),
}


@pytest.fixture(scope="module")
def validator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The installed command. Skipped where there is no Python for it, or nothing to get it from."""
    python = next((found for name in PYTHONS if (found := _working(name))), None)
    if python is None:
        pytest.skip(f"the validator needs one of {', '.join(PYTHONS)}")
    home = tmp_path_factory.mktemp("validator") / "env"
    subprocess.run([python, "-m", "venv", home], check=True, timeout=300)
    pip = [home / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check"]
    got = subprocess.run([*pip, *PACKAGES], check=False, capture_output=True, timeout=900)
    if got.returncode:
        pytest.skip(f"the validator cannot be installed here: {got.stderr[-300:]!r}")
    return home / "bin" / "focus-validator"


def _working(name: str) -> str | None:
    found = shutil.which(name)
    if found is None:
        return None
    asked = subprocess.run([found, "-c", ""], check=False, capture_output=True, timeout=60)
    return None if asked.returncode else found


def failures(validator: Path, file: bytes, folder: Path) -> tuple[int, set[str]]:
    """How many rules were passed, and which were not."""
    table = folder / "focus.csv"
    table.write_bytes(file)
    found = subprocess.run(
        [
            validator, "--data-file", table, "--validate-version", "1.2", "--block-download",
            "--applicability-criteria", ",".join(CRITERIA),
        ],
        check=False, cwd=next((validator.parents[1] / "lib").glob("python3*/site-packages")),
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    report = found.stdout + found.stderr
    summary = re.search(r"Total: \d+ \| Pass: (\d+) \| Fail: (\d+)", report)
    assert summary is not None, report[-2000:]
    failed = set(re.findall(r"(\S+): FAIL", report))
    assert len(failed) == int(summary[2]), "the report contradicts itself"
    return int(summary[1]), failed


@pytest.mark.parametrize("currency", [None, "EUR"], ids=["own currency", "another currency"])
def test_the_public_validator_finds_nothing_but_its_own_contradictions(
    validator: Path, tmp_path: Path, sqlite_url: str, currency: str | None
) -> None:
    with a_ledger(sqlite_url) as engine:
        exported = every_kind_of_row(engine, currency)

    passed, failed = failures(validator, exported.file, tmp_path)

    assert failed == CONTRADICTIONS
    assert passed >= 320


def test_the_public_validator_is_read_by_its_report_and_sees_what_it_can_see(
    validator: Path, tmp_path: Path
) -> None:
    broken = exported(an_invoice().lines).replace(b",USD,", b",usd,")

    _, failed = failures(validator, broken, tmp_path)

    assert any(rule.startswith("BillingCurrency") for rule in failed)
