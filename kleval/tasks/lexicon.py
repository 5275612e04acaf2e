"""The words of kleval's generated prose, and how English inflects them.

Every list is written as plain text: entries are separated by blanks, forms of one entry by a slash. Words whose sound
and spelling disagree about a/an (hour, useful, one) are left out, so that the article follows from the first letter.
"""

from __future__ import annotations

from dataclasses import dataclass

_VOWELS = "aeiou"
# Verbs of two or more syllables, or in -w, -x, -y, whose last consonant is not doubled need no entry here.
_DOUBLED = frozenset("drag grab grip hum mop nod patch plan rub scrub ship skip slip stir stop strip tap trim trip wrap".split())
_DOUBLED = _DOUBLED - {"patch"}


@dataclass(frozen=True, slots=True)
class Verb:
    """base: carry, third: carries, past: carried, participle: carried, ing: carrying."""

    base: str
    third: str
    past: str
    participle: str
    ing: str


@dataclass(frozen=True, slots=True)
class Theme:
    """What an essay is about: things (one, many), places with their article, people by trade (one, many)."""

    name: str
    things: tuple[tuple[str, str], ...]
    places: tuple[str, ...]
    jobs: tuple[tuple[str, str], ...]


def plural(noun: str) -> str:
    """The regular plural of a noun."""
    if noun.endswith("y") and noun[-2] not in _VOWELS:
        return noun[:-1] + "ies"
    if noun.endswith(("s", "x", "z", "ch", "sh")):
        return noun + "es"
    return noun + "s"


def verb(entry: str) -> Verb:
    """`walk`, or `base/past` or `base/past/participle` when irregular."""
    base, _, rest = entry.partition("/")
    third = plural(base)
    stem = base + base[-1] if base in _DOUBLED else base[:-1] if base.endswith("e") else base
    ing = base + "ing" if base.endswith("ee") else stem + "ing"
    if rest:
        past, _, participle = rest.partition("/")
        return Verb(base, third, past, participle or past, _IRREGULAR_ING.get(base, ing))
    if base.endswith("y") and base[-2] not in _VOWELS:
        past = base[:-1] + "ied"
    else:
        past = stem + "ed"
    return Verb(base, third, past, past, ing)


_IRREGULAR_ING = {"set": "setting", "cut": "cutting", "put": "putting", "win": "winning", "forget": "forgetting"}
_IRREGULAR_ING |= {"shut": "shutting", "run": "running", "sit": "sitting", "swim": "swimming", "begin": "beginning"}


def _nouns(text: str) -> tuple[tuple[str, str], ...]:
    pairs = []
    for entry in text.split():
        one, _, many = entry.partition("/")
        pairs.append((one, many or plural(one)))
    return tuple(pairs)


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _phrases(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(","))


def _verbs(text: str) -> tuple[Verb, ...]:
    return tuple(verb(entry) for entry in text.split())


def _theme(name: str, things: str, places: str, jobs: str) -> Theme:
    return Theme(name, _nouns(things), tuple(f"the {p}" for p in _phrases(places)), _nouns(jobs))


THEMES: tuple[Theme, ...] = (
    _theme(
        "the sea",
        "anchor barge buoy cable crane ferry hull lantern mast net oar rope rudder sail compass chart barrel raft",
        "harbour wall, quay, lighthouse, slipway, customs house, breakwater, fish market, boatyard",
        "sailor pilot shipwright rower harbourmaster diver fisherman/fishermen netmaker",
    ),
    _theme(
        "bread",
        "loaf/loaves oven tray apron sack bowl sieve shovel basket cake roll recipe crust jug table bucket",
        "bakery, mill, granary, kitchen door, grain store, back room of the shop, cold cellar, counter",
        "baker miller cook carter apprentice shopkeeper flour merchant"
        .replace("flour merchant", "merchant"),
    ),
    _theme(
        "gardens",
        "spade rake hedge pear plum rose bulb seedling wheelbarrow trellis fence bench bed beehive ladder pot lily",
        "orchard, greenhouse, garden gate, rose walk, kitchen garden, potting shed, lawn, old well",
        "gardener beekeeper botanist florist neighbour gatekeeper forester",
    ),
    _theme(
        "wood",
        "chisel plane saw drawer cupboard chair stool cradle plank hinge nail mallet vice workbench cart wheel frame",
        "workshop, timber yard, sawmill, furniture shop, loft, tool room, drying shed, village hall",
        "carpenter joiner wheelwright turner cabinetmaker woodcutter apprentice",
    ),
    _theme(
        "books",
        "atlas novel letter page shelf/shelves catalogue map diary binding ledger poem portrait index sketch essay stamp",
        "library, reading room, archive, bookshop, printing house, museum, writing desk, gallery",
        "librarian printer poet editor scholar bookseller clerk translator",
    ),
    _theme(
        "school",
        "lesson slate bell desk pencil riddle globe notebook blackboard prize satchel ruler story question inkwell picture",
        "schoolhouse, classroom, playground, chapel, assembly hall, school gate, music room, attic",
        "teacher pupil student caretaker headmaster inspector visitor",
    ),
    _theme(
        "the railway",
        "engine carriage signal whistle ticket timetable boiler bridge lamp platform trunk parcel wagon rail valve lever",
        "station, signal box, waiting room, tunnel, viaduct, ticket office, goods yard, level crossing",
        "driver porter guard stoker passenger signalman/signalmen engineer inspector",
    ),
    _theme(
        "the mountains",
        "boot hut axe/axes path stone tent blanket kettle flag glacier ridge sled goat flask stick rucksack cairn",
        "summit, upper valley, mountain hut, pass, frozen lake, ravine, last pasture, rope bridge",
        "climber guide shepherd surveyor herder hermit traveller",
    ),
    _theme(
        "the theatre",
        "costume curtain mask script stage ticket mirror puppet wig trumpet backdrop candle song dance role poster",
        "theatre, dressing room, box office, rehearsal room, balcony, stage door, opera house, foyer",
        "actor dancer singer director painter musician critic prompter",
    ),
    _theme(
        "the market",
        "stall coin crate scale onion cheese melon pumpkin awning basket bargain apple egg purse turnip carpet",
        "market square, town hall, fountain, covered arcade, inn, corner shop, weigh house, clock tower",
        "trader grocer butcher customer mayor tinker tailor pedlar",
    ),
    _theme(
        "the farm",
        "plough barn cow pail fence field scythe lamb goose/geese hen horse harness trough haystack furrow gate foal",
        "farmyard, long meadow, dairy, stable, sheepfold, ploughed field, hayloft, mill stream",
        "farmer milkmaid shepherd blacksmith ploughman/ploughmen herder stablehand",
    ),
    _theme(
        "the stars",
        "telescope lens planet comet notebook dome clock star tripod chart calculation mirror moon meteor almanac dial",
        "observatory, roof terrace, hilltop, lecture hall, dark room, instrument store, tower stairs, planetarium",
        "astronomer lecturer clockmaker assistant mathematician lensmaker watchman/watchmen",
    ),
    _theme(
        "glass",
        "bottle furnace vase window bead goblet bowl mould pane lamp jar pipe crucible bubble tile chandelier",
        "glassworks, furnace hall, cooling room, showroom, sand pit, packing shed, cathedral, warehouse",
        "glassblower stoker engraver buyer packer designer glazier",
    ),
    _theme(
        "music",
        "violin drum flute piano melody organ cello chord string bow harp ballad score march trumpet tune",
        "concert hall, bandstand, conservatory, organ loft, music shop, rehearsal room, ballroom, parish church",
        "violinist drummer conductor composer organist singer luthier fiddler",
    ),
    _theme(
        "cloth",
        "loom thread needle shawl coat ribbon spindle button blanket hem scarf/scarves pattern carpet sleeve shuttle bobbin",
        "weaving shed, dye house, tailor's shop, wool store, cotton mill, sewing room, drying field, cloth hall",
        "weaver spinner tailor dyer seamstress merchant lacemaker",
    ),
    _theme(
        "medicine",
        "bandage bottle remedy/remedies fever splint powder spoon pulse potion jar thermometer ointment bed cough chart pill",
        "hospital, pharmacy, sick room, herb garden, surgery, waiting room, long ward, laboratory",
        "doctor nurse patient surgeon chemist midwife/midwives herbalist",
    ),
    _theme(
        "the forest",
        "oak fern mushroom nest fox owl log acorn trail branch badger deer/deer squirrel lantern trap cabin clearing",
        "old oak, clearing, forest road, charcoal kiln, spring, hunting lodge, fallen bridge, edge of the wood",
        "forester hunter trapper woodcutter ranger collector warden",
    ),
    _theme(
        "the river",
        "canoe lock sluice ferry trout heron reed weir pebble dam paddle bridge current bank eel punt waterwheel",
        "ford, ferry landing, stone bridge, towpath, water meadow, lock house, mill pond, river mouth",
        "ferryman/ferrymen angler boatman/boatmen miller lockkeeper swimmer washerwoman/washerwomen",
    ),
)

TRANSITIVE = _verbs(
    "admire adjust arrange borrow bring/brought buy/bought carry catch/caught choose/chose/chosen clean collect copy count"
    " cover describe discover drag draw/drew/drawn drop examine fetch find/found finish fold follow gather grab guard hide/hid/hidden"
    " hold/held improve inspect keep/kept label leave/left lift load lose/lost mark measure mend mention move notice open"
    " order paint pass polish prepare protect pull push receive remember remove repair replace return save scrub see/saw/seen"
    " sell/sold show/showed/shown sketch sort steal/stole/stolen store study supply take/took/taken tap test touch trade trim"
    " trust turn unload unpack use wash watch weigh wipe wrap"
)
INTRANSITIVE = _verbs(
    "argue dance doze dream hesitate hum kneel/knelt laugh linger listen pause read/read rest shiver sing/sang/sung"
    " sit/sat sleep/slept smile stand/stood stay stop wait wander whisper whistle work worry"
)
MOVEMENT = _verbs(
    "climb come/came/come cycle drive/drove/driven drift go/went/gone hurry march ride/rode/ridden run/ran/run rush sail stroll"
    " travel/travelled walk wander"
)
THING_DOES = _verbs(
    "appear break/broke/broken burn creak crumble disappear fade fall/fell/fallen freeze/froze/frozen gleam lean lie/lay/lain rattle"
    " rust shake/shook/shaken shine/shone sink/sank/sunk slip tremble vanish wobble"
)
THINK = _verbs(
    "admit argue believe claim complain conclude decide declare dream expect explain fear forget/forgot/forgotten guess hear/heard"
    " hope imagine insist know/knew/known notice promise remark remember reply say/said suppose suspect swear/swore/sworn think/thought"
    " understand/understood worry write/wrote/written"
)
SPEAK = _words("said replied whispered answered muttered called murmured announced remarked sighed")
ASK = _words("asked wondered demanded inquired cried")

THING_ADJECTIVES = _words(
    "ancient battered beautiful bent bright broad broken cheap clean clumsy cold cracked crooked curious curved dark delicate"
    " dirty dry dusty elegant empty enormous expensive faded familiar fine flat foreign fragile gentle grand handsome heavy"
    " huge humble ideal impressive incomplete large light little long lost low modern modest narrow neat new noisy odd old"
    " ordinary ornate outdated painted pale perfect plain pleasant polished poor precious pretty rare rough round rusty shabby"
    " shallow sharp short simple sleek slender small smooth soft solid spare splendid sticky stiff strange strong sturdy"
    " thick thin tiny ugly unfinished untouched valuable warm wet wide wonderful worn"
)
PERSON_ADJECTIVES = _words(
    "absent ambitious anxious brave busy calm careful careless cautious cheerful clever curious diligent eager elderly famous"
    " friendly generous gentle gloomy grateful grumpy happy hungry impatient jealous kind lazy lonely loyal modest nervous"
    " obstinate patient polite proud quiet restless sensible serious shy sleepy stubborn talkative thoughtful tired weary wise"
    " young"
)
ABSTRACT = _words(
    "ambition anger beauty boredom caution charity comfort courage craft curiosity doubt envy experience failure faith fear"
    " friendship gossip gratitude grief habit happiness hope humour kindness laughter luck memory mercy music order patience"
    " peace pride progress silence skill solitude sorrow success tradition trust truth weather wisdom work"
)
ABSTRACT_ADJECTIVES = _words(
    "bitter common dangerous early endless false gentle honourable long mutual old perfect private public quiet rare real"
    " secret simple sudden true unexpected"
)
ABSTRACT_ADJECTIVES = tuple(a for a in ABSTRACT_ADJECTIVES if a not in {"honourable", "secret"})
ADVERBS = _words(
    "accidentally angrily anxiously at_last badly bravely calmly carefully carelessly cheerfully clumsily eagerly easily"
    " eventually finally gently gladly gradually happily hastily immediately kindly lazily loudly neatly nervously"
    " often patiently politely proudly quickly quietly rarely secretly seldom silently slowly softly solemnly"
    " sometimes stubbornly suddenly usually wearily"
)
ADVERBS = tuple(a.replace("_", " ") for a in ADVERBS if a != "secretly")
MATERIALS = _words(
    "amber brass bronze clay copper cork cotton felt glass granite iron ivory leather linen marble oak paper pewter pine silk"
    " silver slate steel straw tin velvet wax wool"
)
COLOURS = _words("amber black blue brown crimson golden green grey indigo orange purple red scarlet violet white yellow")
ANIMALS = _nouns(
    "badger cat cow crow dog donkey duck fox frog goat goose/geese hare hen heron horse magpie mouse/mice mule otter owl ox/oxen"
    " pigeon rabbit raven sheep/sheep sparrow spider squirrel swan toad"
)
KIN = _words("aunt brother cousin daughter father grandfather grandmother mother nephew niece sister son uncle neighbour friend")
UNITS = _words("days weeks months years winters summers hours evenings mornings")
COINS = _words("coins pennies shillings crowns pounds")
SEASONS = _words("spring summer autumn winter")
MONTHS = _words("January February March April June July August September October November December")
WEEKDAYS = _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
ORDINALS = _words("first second third fourth fifth sixth seventh eighth ninth tenth twelfth twentieth last")
NUMBERS = _words(
    "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
    " twenty thirty forty fifty sixty seventy eighty ninety"
)
WEATHER = _words("bright cloudy clear cold damp dark foggy freezing grey hot icy mild misty rainy snowy stormy warm wet windy")

WOMEN = _words(
    "Ada Agnes Alice Anna Beatrix Bella Clara Cora Daphne Della Edith Elena Esther Flora Freya Greta Hanna Helena Ida Ines"
    " Irma Josephine Judith Karin Laura Leonie Lydia Mabel Marta Matilda Nadia Nora Olga Paula Petra Rosa Ruth Selma Sonia Tilda"
    " Ursula Vera Wilma Yvonne"
)
MEN = _words(
    "Abel Adam Albert Anton Arthur Basil Boris Carl Casper Conrad Daniel Edgar Edmund Emil Felix Frederick George Gilbert"
    " Gustav Harold Henry Hugo Isaac Ivan Jacob Jasper Jonas Julian Karl Leo Lucas Martin Max Nathan Oscar Otto Paul Peter"
    " Rupert Samuel Simon Thomas Victor Walter"
)
SURNAMES = _words(
    "Abbot Alder Ashby Barlow Bexley Birch Brandt Calder Carver Colby Crane Dalton Denby Drake Ellery Farrow Fenwick Garland"
    " Hadley Hale Harker Holt Ingram Jarvis Keating Lambert Larkin Marlow Mercer Nash Orchard Penrose Quill Ramsey Rowe Selby"
    " Sutton Tarrant Thorne Vance Warden Whitlock Winslow Yates"
)
TOWNS = _words(
    "Aldmere Ambleford Ashcombe Barrowby Brackwell Brindlewick Calderstow Copperhill Dunmarsh Eastholm Elmstead Fallowmere"
    " Farnley Foxbridge Glenmoor Greywater Hartsmead Hazelford Highcliff Inglewold Ivybank Kelmouth Kingsferry Lambsdale"
    " Langrove Larkhill Marshend Millbourne Netherby Norwick Oakhampton Otterburn Pebbleton Quarrywood Ravensholt Redmarsh"
    " Saltcombe Silverdale Southmoor Stonebeck Thistledon Upperfold Wetherley Whitecross Willowby Wrenfield"
)
