"""The words that kleval's own prose is made of. Plain ASCII, no digits, no hyphens; countable nouns and regular use only."""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


NAMES = _words(
    """Ada Agnes Albert Alma Anton Arthur Beatrice Bernard Bruno Cecil Clara Conrad Cora Daniel Dora Edgar Edith Elias Elsa Emil
    Esther Eva Felix Flora Frank George Greta Gustav Hanna Harold Hedwig Helen Henry Hugo Ida Ingrid Irene Isaac Ivan Jacob Jasper
    Johanna Julius Karla Laura Leo Lena Lydia Magnus Marta Martin Matilda Maurice Mina Nathan Nora Olga Oscar Otto Paula Peter
    Philip Rosa Rudolf Ruth Sarah Selma Simon Stella Theodor Thomas Ursula Victor Vera Walter Wanda Willa Xenia Yvonne Zelda"""
)
PEOPLE = _words(
    """baker teacher sailor farmer painter doctor lawyer gardener carpenter miller student musician librarian merchant shepherd
    weaver printer smith judge tailor porter fisherman neighbor stranger captain clerk engineer poet widow traveler historian
    mason hunter cook messenger watchman beekeeper ferryman apprentice mayor"""
)
THINGS = _words(
    """letter lamp basket ladder clock map kettle violin candle mirror blanket wagon hammer painting notebook coin ring umbrella
    suitcase barrel rope bell chair table cup drawer window door key jacket boat bucket shovel compass bottle carpet curtain
    pencil newspaper parcel shelf stove saddle wheel bench statue flag net oar trunk garment loaf cheese pear apple stone feather"""
)
PLACES = _words(
    """harbor market village orchard station library meadow mill bridge chapel kitchen workshop valley garden tower cellar
    schoolhouse bakery courtyard museum theater farmhouse lighthouse forest quarry riverbank hillside inn stable vineyard
    warehouse square attic hall crossroads cemetery monastery shipyard"""
)
ADJECTIVES = _words(
    """old quiet narrow heavy bright broken cheerful clumsy cold curious dark distant dusty early empty faded famous foreign
    friendly gentle green honest hollow humble lonely loud modest muddy new noisy painted patient plain polished pretty proud
    quaint rusty sad shabby sharp silver simple sleepy slow small soft solid strange sturdy sunny tall thin tired warm weary
    white wide wooden yellow young"""
)
ABSTRACTS = _words(
    """patience courage weather music memory silence honesty trade language winter hunger friendship work sleep travel gossip
    learning kindness fashion debt luck pride hope fear poetry history cooking farming justice habit"""
)
TRANSITIVE = _words(
    """carried found repaired sold painted borrowed hid lost bought polished described wanted watched moved cleaned noticed
    admired returned examined kept received mentioned inspected dropped lifted remembered ignored forgot guarded needed"""
)
INTRANSITIVE = _words(
    """waited laughed slept whispered hesitated wandered listened arrived shivered smiled returned worked sang complained rested
    argued wept walked vanished lingered nodded stumbled prayed"""
)
SAID = _words("said thought claimed explained insisted believed repeated admitted suspected announced heard agreed")
ADVERBS = _words(
    """slowly quietly gladly often rarely suddenly carefully patiently eagerly calmly secretly hastily proudly sadly softly
    politely firmly lazily bravely gently"""
)
PREPOSITIONS = ("behind", "near", "in", "beside", "outside", "opposite", "above", "below")
TIMES = (
    "in the morning", "after the harvest", "before sunrise", "late in the evening", "on the first day of spring",
    "during the long winter", "on a rainy afternoon", "every other week", "at the end of the summer", "at noon",
    "when the bells rang", "after supper", "on market day", "that same night", "many years later", "for the second time",
    "in those days", "before the storm", "on the way home", "at the turn of the year", "without any warning", "once more",
)  # fmt: skip
NUMBERS = (
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "twenty",
    "forty",
)
WEATHER = ("rain", "snow", "fog", "wind", "sunlight", "hail", "thunder", "frost", "mist", "smoke")
TITLES = ("Mr.", "Mrs.", "Dr.", "Prof.", "St.")
