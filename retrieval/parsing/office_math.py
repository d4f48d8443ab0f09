"""Office equations (OMML) on one line: `(a+b)/c`, `x^2`, `sqrt(x)`."""

from retrieval.parsing.safe_xml import Element, child, local_name

_CONTROLS = frozenset(
    {"accPr", "barPr", "ctrlPr", "dPr", "fPr", "funcPr", "mPr", "naryPr", "oMathParaPr", "rPr",
     "radPr", "sPrePr", "sSubPr", "sSubSupPr", "sSupPr"}
)  # fmt: skip


def math_text(element: Element | None) -> str:
    """The characters of an equation in reading order."""
    if element is None:
        return ""
    name = local_name(element)
    if name == "t":
        return str(element.text or "")
    if name in _CONTROLS:
        return ""
    parts = {key: math_text(child(element, key)) for key in _PARTS.get(name, ())}
    if name == "f":
        return f"{_group(parts['num'])}/{_group(parts['den'])}"
    if name == "rad":
        degree = f"root{_group(parts['deg'])}" if parts["deg"] else "sqrt"
        return f"{degree}({parts['e']})"
    if name in ("sSub", "sSup", "sSubSup"):
        low = f"_{_group(parts['sub'])}" if parts.get("sub") else ""
        high = f"^{_group(parts['sup'])}" if parts.get("sup") else ""
        return parts["e"] + low + high
    if name == "d":
        return f"({', '.join(math_text(item) for item in element if local_name(item) == 'e')})"
    return "".join(math_text(item) for item in element)


def _group(text: str) -> str:
    return text if len(text) < 2 or text.isalnum() else f"({text})"


_PARTS = {
    "f": ("num", "den"),
    "rad": ("deg", "e"),
    "sSub": ("e", "sub"),
    "sSup": ("e", "sup"),
    "sSubSup": ("e", "sub", "sup"),
}
