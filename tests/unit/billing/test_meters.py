from billing.meters import METERS, Meter, Meters


def test_every_meter_has_its_own_figure() -> None:
    meters = Meters(1, 2, 3, 4, 5)

    assert [meters.of(meter) for meter in METERS] == [1, 2, 3, 4, 5]
    assert meters.of(Meter.OUTPUT) == 5


def test_the_prompt_is_everything_but_the_output() -> None:
    meters = Meters(1, 2, 3, 4, 5)

    assert meters.all_input == 10
    assert meters.total == 15


def test_meters_add_up_meter_by_meter() -> None:
    assert Meters(1, 2, 3, 4, 5) + Meters(10, 20, 30, 40, 50) == Meters(11, 22, 33, 44, 55)
