"""Coined names: places, people, companies, works, species. Nothing here is known to any model.

Names come from syllables of several sound systems; people also from common given names and
surnames in random pairs.
"""

import random
from collections.abc import Callable


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_SOUNDS: tuple[tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]], ...] = (
    (
        _words("b br c d dr f g gr h k l m n p r s st t th tr v w"),
        _words("a e i o u ea ai ou"),
        _words("n r l m nd rt ck ld st lm rn d t"),
    ),
    (
        _words("b c d f g l m n p r s t v z gl qu"),
        _words("a e i o u ia io"),
        ("", "", "n", "r", "l", "s"),
    ),
    (
        _words("k t s n h m y r w g z d b p j sh ch"),
        _words("a i u e o"),
        ("", "", "", "n"),
    ),
    (
        _words("b d g k l m n p r s t v z zh ch sh kr dr vl sv pr"),
        _words("a e i o u ya"),
        _words("v k n sk r l j m ts"),
    ),
    (
        _words("m n b nd mb k t l w z s ng kw th y"),
        _words("a e i o u"),
        ("", "", "", ""),
    ),
    (
        _words("h kh q b d f g j k l m n r s sh t w y z"),
        _words("a i u aa ee"),
        _words("r n m d l f b sh q"),
    ),
    (
        _words("h j k l m n p r s t v hj kv tj"),
        _words("a e i o u y ei au"),
        _words("n r l ll nn s rd ng k"),
    ),
)

_GIVEN = _words(
    """
    Ada Adele Agnes Aisha Alan Albert Alice Alma Amara Amit Ana Anders Andrea Anita Anton
    Arjun Astrid Aurora Bella Benedikt Bianca Boris Brenda Bruno Carla Carmen Cecilia Celeste
    Chidi Clara Claudia Colin Cora Dalia Damian Daniela Dario Deepa Denise Dmitri Dora Edgar
    Edith Elena Elias Elif Eliza Elsa Emeka Emil Erik Esther Eva Fabian Farid Fatima Felix
    Fiona Flora Frances Frida Gabriel Gemma Gerda Gianni Gloria Grace Greta Gustav Hana Hannah
    Harriet Hassan Hector Heidi Helena Henrik Hilda Hugo Ibrahim Ida Ines Ingrid Irene Iris
    Isaac Ivan Ivy Jakob Jasper Joanna Jonas Josef Judith Julia Karim Karin Katya Keiko Kenji
    Klara Kofi Lars Laszlo Laura Leila Lena Leon Lila Linnea Lorenzo Louise Lucia Ludwig Lydia
    Magda Malik Marcel Margit Mariam Marta Matilda Maxim Mei Mila Milan Mina Miriam Moritz
    Nadia Naomi Natalia Nikhil Nina Noor Olga Olive Oscar Otto Pablo Paula Pavel Petra
    Philippa Priya Rafael Rahel Rania Ravi Rebecca Renata Rita Roland Rosa Rufus Ruth Salma
    Samir Sanna Selma Sergei Silvia Simon Sofia Stefan Stella Sunita Susanna Tamar Tariq Tessa
    Thea Theodor Tilda Tobias Tomas Uma Ursula Valentin Vera Victor Viola Wanda Wilma Xavier
    Yara Yasmin Yusuf Zara Zoe
    """
)

_SURNAMES = _words(
    """
    Abara Achterberg Adeyemi Ahlgren Alcott Almeida Amsel Andrade Ashdown Baird Balint
    Banerjee Barlow Bastos Bauer Beckett Bergstrom Bhatt Birch Bjork Blackwood Bondar Brandt
    Brook Burke Calder Campos Carver Castellan Chaudhry Clavell Clifton Coombs Cordova Corwin
    Dahl Dalton Darrow Desai Devlin Dobbs Draper Drummond Eastman Eklund Ellery Engel Escobar
    Farrow Fenwick Ferrante Finch Fiorelli Fonseca Forster Galvan Garrick Gaspar Gibbons
    Giraud Goswami Granger Greaves Gruber Haas Hadley Halloran Hartwell Hawthorne Hedlund
    Heller Herrera Hobbs Hollis Holm Horvath Huxtable Ibanez Ilves Ingham Ismail Iyer Jarvis
    Jelinek Joshi Kamara Kaplan Keane Kessler Kimura Kirby Klein Kolar Kovacs Kruger Lachance
    Larkin Laurent Lehmann Leroux Lindqvist Lockhart Lombardi Lund Madsen Mahoney Malkin
    Marchetti Marlow Mbeki Mehta Mercer Meszaros Moreau Morita Mwangi Nakamura Navarro Neville
    Nilsen Novak Nwosu Oakes Obi Okafor Olsen Orlov Osei Paget Palmer Parekh Pavlov Penrose
    Perrin Petrov Pickering Pinto Prescott Quigley Quist Radley Ramos Rao Ravenscroft Redfern
    Reyes Rinaldi Romero Rostov Rutledge Sabo Sandoval Sato Schuster Seaton Sharma Shepard
    Silva Sinclair Skov Solberg Somerset Sorensen Stanton Steiner Stroud Suzuki Szabo Tanaka
    Teague Thackeray Thorne Toller Tremblay Ulrich Underhill Unger Vance Varga Vasquez Verma
    Vidal Vogel Voss Wadsworth Wagner Wakefield Weir Wendt Whitlock Winslow Wolff Yamada Yates
    Yilmaz Zeller Ziegler Zapata
    """
)

_PLACE_ENDINGS = _words(
    """
    ford ton ham wick bury field mouth stead worth dale haven burg stad vik holm grad ovo ana
    era ino ville court mont abad pur kot
    """
)
_COUNTRY_ENDINGS = _words("ia land stan ria mark vania esia ora and")
_COMPANY_ENDINGS = _words(
    """
    Systems Logistics Foods Energy Labs Works Group Industries Partners Mobile Textiles
    Instruments Motors Publishing Airlines Insurance Software Materials Robotics Pharma Rail
    Telecom Holdings Brewing Optics
    """
)
_COMPANY_FORMS = ("", "", "", " Ltd", " Inc.", " GmbH", " plc", " AB", " & Sons", " Co.")
_ORG_FORMS = (
    "{} Institute",
    "{} Foundation",
    "{} Society",
    "{} Trust",
    "{} Council",
    "{} Association",
    "{} Academy",
    "University of {}",
    "{} Commission",
    "{} Federation",
    "National {} Agency",
    "{} Union",
    "{} Observatory",
    "{} Cooperative",
    "Bureau of {}",
)
_TEAM_ENDINGS = _words(
    """
    Rovers United Hawks Comets Lions Athletic Miners Wanderers Storm Falcons City Ravens
    Titans Pilots Harriers Saints Otters Bulls Mariners Rangers
    """
)
_SHIP_FORMS = ("{} Star", "Lady {}", "{}", "Queen of {}", "{} Pioneer", "Spirit of {}", "{} Maru")
_PRODUCT_FORMS = ("{} {}", "{} Pro {}", "{}-{}", "{} Mini {}", "{}{}", "{} Air {}", "{} Mark {}")
_ADJECTIVES = _words(
    """
    silent amber hollow northern broken second crooked golden drowned paper distant winter
    burning quiet restless borrowed iron velvet narrow forgotten patient salt blue hungry
    wandering invisible late open tall glass
    """
)
_NOUNS = _words(
    """
    orchard lighthouse river letter garden harbour clock mountain mirror house stranger season
    kingdom staircase window lantern road island daughter orchestra map tide market kitchen
    horse valley bridge archive shadow field
    """
)
_WORK_FORMS = (
    "The {a} {n}",
    "{a} {n}",
    "The {n} and the {m}",
    "A {n} of {p}",
    "{n}s of {p}",
    "Beyond the {a} {n}",
    "The {n} Keeper",
    "No {n} for {p}",
    "Songs from the {a} {n}",
)
_SPECIES_PLAIN = _words(
    """
    warbler beetle orchid moth frog shrew sedge finch lizard snail fern crab bat poppy wasp
    newt thistle plover skink pine
    """
)
_SPECIES_ENDINGS = ("us", "a", "ensis", "um", "is", "ix", "oides", "ata", "icola")
_CHEMICAL_ENDINGS = _words("ine ol ate ide one amide ene ium azole icin")
_TERM_FORMS = (
    "{} effect",
    "{} index",
    "{} method",
    "{} ratio",
    "{} principle",
    "{} test",
    "{}ism",
    "{} transform",
    "{} cycle",
    "{} rule",
    "{} scale",
)


def coined(rng: random.Random, syllables: int | None = None) -> str:
    """A capitalised invented word."""
    onsets, vowels, codas = rng.choice(_SOUNDS)
    count = syllables or rng.choice((2, 2, 2, 3))
    parts = []
    for position in range(count):
        onset = rng.choice(onsets) if position or rng.random() < 0.85 else ""
        coda = rng.choice(codas) if position == count - 1 or rng.random() < 0.3 else ""
        parts.append(onset + rng.choice(vowels) + coda)
    word = "".join(parts)
    return word[0].upper() + word[1:]


def person(rng: random.Random) -> tuple[str, str]:
    """Given name (perhaps with an initial) and surname."""
    given = rng.choice(_GIVEN) if rng.random() < 0.8 else coined(rng, 2)
    last = rng.choice(_SURNAMES) if rng.random() < 0.65 else coined(rng)
    style = rng.random()
    if style < 0.06:
        given = f"{given} {rng.choice('ABCDEFGHJKLMNPRSTVW')}."
    elif style < 0.1:
        last = f"{rng.choice(('van', 'de', 'von', 'al-', 'del', 'Mac', 'da'))} {last}"
        last = last.replace("- ", "-").replace("Mac ", "Mac")
    elif style < 0.13:
        last = f"{last}-{rng.choice(_SURNAMES)}"
    return given, last


def place(rng: random.Random) -> str:
    """A town or region."""
    style = rng.random()
    if style < 0.4:
        return coined(rng, 1) + rng.choice(_PLACE_ENDINGS)
    if style < 0.85:
        return coined(rng)
    prefix = rng.choice(("Port", "New", "Upper", "San", "Saint", "Lower", "Fort", "East", "Bad"))
    return f"{prefix} {coined(rng, 2)}"


def country(rng: random.Random) -> str:
    """A country."""
    return coined(rng, 2).rstrip("aeiou") + rng.choice(_COUNTRY_ENDINGS)


def river(rng: random.Random) -> str:
    """A river, without an article."""
    name = coined(rng)
    return rng.choice((name, name, f"{name} River", f"River {name}"))


def mountain(rng: random.Random) -> str:
    """A mountain or peak."""
    name = coined(rng)
    return rng.choice(
        (f"Mount {name}", f"{name} Peak", f"Pic {name}", f"{name}horn", f"{name} Fell")
    )


def organisation(rng: random.Random) -> str:
    """A public body, society or school."""
    return rng.choice(_ORG_FORMS).format(coined(rng))


def company(rng: random.Random) -> str:
    """A company, sometimes with its legal form."""
    name = coined(rng)
    if rng.random() < 0.6:
        name = f"{name} {rng.choice(_COMPANY_ENDINGS)}"
    return name + rng.choice(_COMPANY_FORMS)


def product(rng: random.Random) -> str:
    """A product with a model number or alone."""
    name = coined(rng, 2)
    if rng.random() < 0.35:
        return name
    numbers = (str(rng.randint(2, 9)), str(rng.randint(10, 99) * 10), f"X{rng.randint(1, 9)}")
    number = rng.choice(numbers)
    return rng.choice(_PRODUCT_FORMS).format(name, number)


def ship(rng: random.Random) -> str:
    """A ship's name without prefix."""
    return rng.choice(_SHIP_FORMS).format(coined(rng))


def team(rng: random.Random) -> str:
    """A sports team."""
    return f"{place(rng)} {rng.choice(_TEAM_ENDINGS)}"


def work_title(rng: random.Random) -> str:
    """A book, film or song."""
    return rng.choice(_WORK_FORMS).format(
        a=rng.choice(_ADJECTIVES).title(),
        n=rng.choice(_NOUNS).title(),
        m=rng.choice(_NOUNS).title(),
        p=coined(rng, 2),
    )


def species(rng: random.Random) -> str:
    """A Latin-like or common species name."""
    if rng.random() < 0.5:
        return f"{coined(rng, 2)}us {coined(rng, 2).lower()}{rng.choice(_SPECIES_ENDINGS)}"
    return f"{coined(rng, 2)} {rng.choice(_SPECIES_PLAIN)}"


def chemical(rng: random.Random) -> str:
    """A compound."""
    return coined(rng, 2).lower().rstrip("aeiou") + rng.choice(_CHEMICAL_ENDINGS)


def term(rng: random.Random) -> str:
    """A technical term named after somebody."""
    return rng.choice(_TERM_FORMS).format(coined(rng, 2))


def language(rng: random.Random) -> str:
    """A language."""
    return coined(rng, 2).rstrip("aeiou") + rng.choice(("ish", "ian", "ese", "i", "ic", "o"))


def people(rng: random.Random) -> str:
    """A people's name, in the plural."""
    return coined(rng, 2).rstrip("aeious") + rng.choice(("i", "ans", "a", "es", "u"))


NAMES: dict[str, Callable[[random.Random], str]] = {
    "place": place,
    "country": country,
    "river": river,
    "mountain": mountain,
    "org": organisation,
    "company": company,
    "product": product,
    "ship": ship,
    "team": team,
    "title_work": work_title,
    "species": species,
    "chemical": chemical,
    "term": term,
    "language": language,
    "people": people,
}
