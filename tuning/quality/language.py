"""The language of a text by its most frequent words: cheap, and enough to find strays."""

import re

_WORD = re.compile(r"[^\W\d_]+")
_MIN_WORDS, _MIN_SHARE = 5, 0.15
# The commonest function words of each language; those of several count for each of them.
_COMMON = {
    "en": "the of and to in is you that it he was for on are as with his they at be this have "
    "from or had by but what some we can out other were all there when use your how said an "
    "each which do their if will not has my i me does",
    "de": "der die und in den von zu das mit sich des auf für ist im dem nicht ein eine als auch "
    "es an werden aus er hat dass sie nach wird bei einer um am sind noch wie einem über einen "
    "so zum war haben nur oder aber vor zur bis mehr ich wir kann mein",
    "fr": "de la le et les des en un du une que est pour qui dans a par plus pas au sur ne se le "
    "ce il sont mais comme ou si leur y dont avec aux été cette deux je vous nous mon votre",
    "es": "de la que el en y a los se del las un por con no una su para es al lo como más o pero "
    "sus le ha me si sin sobre este ya entre cuando todo esta ser son dos también fue había mi",
    "it": "di e che la il un a per è in una mi sono ho non ma lo ha le si con come ti se della ci "
    "questo qui hai sei del no bene tutto era gli alla perché nel anche da al io mio",
    "pt": "de a o que e do da em um para é com não uma os no se na por mais as dos como mas foi "
    "ao ele das tem à seu sua ou ser quando muito há nos já está eu também só pelo meu",
    "nl": "de van een het en in is dat op te zijn voor met die niet aan er om ook als dan maar bij "
    "uit nog worden door naar heeft hij ze wordt tot je wij ik deze kan mijn u hoe",
}
_WORDS = {language: frozenset(words.split()) for language, words in _COMMON.items()}
LANGUAGES = tuple(_WORDS)


def detect_language(text: str) -> str | None:
    """The language among `LANGUAGES`, or None where the text is too short or of another one."""
    hits, words = _hits(text)
    best = max(hits, key=lambda language: hits[language])
    return best if words >= _MIN_WORDS and hits[best] >= _MIN_SHARE * words else None


def is_foreign(text: str, language: str) -> bool:
    """Whether a text is surely not in `language`: another script, or another one's words.

    Names and loan words are not enough: three words of the other language, and twice as many as
    of the expected one.
    """
    letters = [character for character in text if character.isalpha()]
    outside = sum(ord(character) > 0x24F for character in letters)
    if letters and outside > len(letters) / 2:
        return True
    found = detect_language(text)
    if found is None or found == language:
        return False
    hits, _ = _hits(text)
    return hits[found] >= 3 and hits[found] > 2 * hits.get(language, 0)


def _hits(text: str) -> tuple[dict[str, int], int]:
    """How many words of each language a text has, and how many words in all."""
    words = [word.lower() for word in _WORD.findall(text)]
    return {name: sum(w in common for w in words) for name, common in _WORDS.items()}, len(words)
