"""Units and currencies with the factor to their standard form."""

from decimal import Decimal

SYMBOLS = "$€£¥"

CURRENCIES: dict[str, tuple[str, Decimal]] = {
    name: (code, Decimal(factor))
    for code, factor, names in (
        ("USD", "1", "$ us$ usd dollar dollars"),
        ("USD", "0.01", "cent cents"),
        ("EUR", "1", "€ eur euro euros"),
        ("GBP", "1", "£ gbp pound pounds"),
        ("JPY", "1", "¥ jpy yen"),
        ("CHF", "1", "chf franc francs"),
    )
    for name in names.split()
}

UNITS: dict[str, tuple[str, Decimal]] = {
    name: (unit, Decimal(factor))
    for unit, factor, names in (
        ("s", "0.001", "ms millisecond milliseconds"),
        ("s", "1", "s sec secs second seconds"),
        ("s", "60", "min mins minute minutes"),
        ("s", "3600", "h hr hrs hour hours"),
        ("s", "86400", "day days"),
        ("s", "604800", "week weeks"),
        ("month", "1", "month months"),
        ("month", "3", "quarter quarters"),
        ("month", "12", "year years"),
        ("m", "0.001", "mm millimetre millimetres millimeter millimeters"),
        ("m", "0.01", "cm centimetre centimetres centimeter centimeters"),
        ("m", "1", "m metre metres meter meters"),
        ("m", "1000", "km kilometre kilometres kilometer kilometers"),
        ("mile", "1", "mile miles"),
        ("inch", "1", "inch inches"),
        ("inch", "12", "foot feet ft"),
        ("g", "0.001", "mg"),
        ("g", "1", "g gram grams"),
        ("g", "1000", "kg kilo kilos kilogram kilograms"),
        ("g", "1000000", "tonne tonnes"),
        ("lb", "1", "lb lbs"),
        ("l", "0.001", "ml"),
        ("l", "1", "l litre litres liter liters"),
        ("b", "1", "byte bytes"),
        ("kb", "1", "kb kilobyte kilobytes"),
        ("mb", "1", "mb megabyte megabytes"),
        ("gb", "1", "gb gigabyte gigabytes"),
        ("tb", "1", "tb terabyte terabytes"),
        ("kwh", "1", "kwh"),
        ("w", "1", "w watt watts"),
        ("w", "1000", "kw kilowatt kilowatts"),
        ("v", "1", "v volt volts"),
        ("bar", "1", "bar"),
        ("°c", "1", "°c celsius"),
        ("°f", "1", "°f fahrenheit"),
        ("degree", "1", "degree degrees °"),
        ("user", "1", "user users"),
        ("seat", "1", "seat seats"),
        ("device", "1", "device devices"),
        ("time", "1", "time times"),
        ("request", "1", "request requests"),
        ("attempt", "1", "attempt attempts"),
        ("item", "1", "item items"),
    )
    for name in names.split()
}
