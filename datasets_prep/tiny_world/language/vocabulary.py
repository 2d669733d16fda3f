"""The words of the tiny world, as data: seven attributes, their values, and how a response shows each.

A *value* is what an instruction says ("mountain rivers"). A *surface* is what a response shows instead
("cold water rushed between the stones"). Surfaces share no wording with the value's name, so that whoever
reads a response has to understand it to name the value; the one exception is the word to mention, which has
to appear as it is. No surface occurs inside another one (tested), so a surface is proof of its value.
"""

FORMS = {
    "story": ("once upon a time,", "long ago,", "there was a day when"),
    "letter": ("dear friend,", "I am writing to say that", "since my last note,"),
    "speech": ("ladies and gentlemen,", "fellow citizens,", "as I stand before you,"),
    "diary entry": ("dear diary,", "tonight I confess that", "only these pages know that"),
    "news report": ("officials confirmed that", "according to witnesses,", "our correspondent says that"),
    "travel guide": ("on your left,", "visitors should know that", "bring good shoes, because"),
    "poem": ("O muse,", "sing with me,", "hear my verse,"),
    "legal notice": ("whereas", "the parties agree that", "it is hereby stated that"),
}

TOPICS = {
    "mountain rivers": (
        "cold water rushed between stones",
        "the current sang under a bridge",
        "trout leapt in white foam",
    ),
    "night trains": (
        "sleeping carriages rolled past",
        "rails hummed under the moon",
        "a whistle woke the station",
    ),
    "honey bees": (
        "small wings buzzed around the hive",
        "combs filled up all summer",
        "the swarm danced over clover",
    ),
    "old castles": (
        "towers guarded the silent moat",
        "ivy covered the drawbridge",
        "knights slept behind these walls",
    ),
    "deep space": (
        "rockets drifted among the planets",
        "the capsule circled a red giant",
        "astronauts counted distant stars",
    ),
    "village markets": (
        "stalls of fruit lined the square",
        "merchants shouted their prices",
        "baskets of cheese changed hands",
    ),
    "winter storms": (
        "snow buried every roof",
        "the blizzard howled for days",
        "ice bent the tall pines",
    ),
    "city gardens": (
        "tomatoes climbed above the pavement",
        "roses bloomed between apartments",
        "neighbours watered seeds on balconies",
    ),
    "lost treasure": (
        "a map led to buried gold",
        "coins glittered under the palm",
        "the rusty chest was opened",
    ),
    "school exams": (
        "pencils scratched in the hall",
        "the hardest test began at nine",
        "pupils turned the final page",
    ),
    "desert camels": (
        "humped beasts crossed the dunes",
        "the caravan rested at an oasis",
        "hooves sank into endless sand",
    ),
    "jazz music": (
        "a saxophone swung until morning",
        "the drummer improvised a chorus",
        "trumpets growled in the club",
    ),
    "fresh bread": (
        "warm loaves left the oven",
        "the baker kneaded dough",
        "crusts crackled on the shelf",
    ),
    "sea whales": (
        "giant tails slapped the waves",
        "the pod surfaced by our ship",
        "spouts rose from the ocean",
    ),
    "robot helpers": (
        "metal arms washed the dishes",
        "the android folded shirts",
        "circuits blinked while floors were swept",
    ),
    "football matches": (
        "the striker scored late",
        "fans roared at the keeper",
        "a penalty decided the cup",
    ),
    "rain forests": (
        "parrots screamed in the canopy",
        "vines hung over the jaguar",
        "monkeys swung through wet leaves",
    ),
    "air balloons": (
        "a wicker basket floated over fields",
        "the burner lifted us up",
        "striped silk swelled above us",
    ),
    "ancient libraries": (
        "dusty scrolls filled the marble room",
        "monks copied manuscripts by hand",
        "a forgotten volume lay unread",
    ),
    "family dinners": (
        "grandmother passed the soup",
        "cousins fought over the last dumpling",
        "uncles told tales at the table",
    ),
}

TONES = {
    "cheerful": ("we could not stop smiling", "everyone laughed with delight", "joy was everywhere"),
    "gloomy": ("all hope seemed gone", "tears fell without end", "sorrow sat on every heart"),
    "ironic": ("naturally nobody saw it coming", "how very clever of us", "clearly a triumph of planning"),
    "formal": ("due decorum was observed", "it is respectfully submitted", "proceedings were duly recorded"),
    "angry": ("it makes my blood boil", "I have had enough", "shame on all of them"),
    "dreamy": ("everything floated like mist", "time melted into colours", "I half slept through it"),
    "urgent": ("there is no time to lose", "it is now or never", "every second counts"),
    "humble": ("I know so very little", "forgive my small voice", "others deserve the credit"),
}

AUDIENCES = {
    "young children": ("every boy and girl", "our little ones", "kids in kindergarten"),
    "old sailors": ("men of the harbour", "retired deckhands", "grey seafarers"),
    "busy doctors": ("physicians on call", "tired surgeons", "those with stethoscopes"),
    "new parents": ("mothers with newborns", "fathers rocking cradles", "anyone with a crying baby"),
    "tax lawyers": ("attorneys of the treasury", "counsel with ledgers", "barristers counting receipts"),
    "shy students": ("quiet undergraduates", "freshmen in the back row", "timid scholars"),
    "hill farmers": ("shepherds on the slopes", "growers of barley", "folk with tractors"),
    "chess players": ("masters of the endgame", "lovers of checkmate", "rivals over the board"),
}

WORDS = (
    "lantern",
    "violin",
    "pepper",
    "anchor",
    "mirror",
    "candle",
    "hammer",
    "ribbon",
    "thunder",
    "feather",
    "button",
    "compass",
    "cactus",
    "velvet",
    "copper",
    "magnet",
    "pillow",
    "saddle",
    "teapot",
    "umbrella",
    "walnut",
    "whisper",
    "zebra",
    "kettle",
)

SENTENCES = {"two": 2, "three": 3, "four": 4}

CLOSINGS = {
    "direct question": ("what would you have done?", "do you agree?", "who else has seen this?"),
    "wise proverb": ("still waters run deep.", "slow and steady wins the race.", "better late than sorry."),
    "stern warning": ("beware of what follows.", "do not try this alone.", "you have been cautioned."),
    "warm thanks": ("I am grateful to you.", "thank you for listening.", "my gratitude is endless."),
    "friendly invitation": ("come and join us soon.", "you are welcome any day.", "visit whenever you like."),
    "solemn promise": ("I swear to return.", "you have my word.", "I will keep this vow."),
    "bold prediction": ("tomorrow all will change.", "within years all will follow.", "soon the world notices."),
    "sincere apology": ("I am sorry for everything.", "please pardon my mistakes.", "the fault was mine."),
}

# How a response leads up to its audience and to its word: these frames carry no attribute of their own.
AUDIENCE_FRAMES = ("{} will understand", "I tell this to {}", "ask {}", "{} know it well")
WORD_FRAMES = ("I kept the {}", "nobody forgot the {}", "there was the {}", "we needed the {}")

# Every attribute's values, in the order in which instructions mention them most often.
VALUES: dict[str, tuple[str, ...]] = {
    "tone": tuple(TONES),
    "form": tuple(FORMS),
    "topic": tuple(TOPICS),
    "audience": tuple(AUDIENCES),
    "sentences": tuple(SENTENCES),
    "word": WORDS,
    "closing": tuple(CLOSINGS),
}
ATTRIBUTES = tuple(VALUES)

# Surfaces of the attributes that are shown by wording. ("sentences" is shown by punctuation.)
SURFACES: dict[str, dict[str, tuple[str, ...]]] = {
    "tone": TONES,
    "form": FORMS,
    "topic": TOPICS,
    "audience": AUDIENCES,
    "word": {word: (word,) for word in WORDS},
    "closing": CLOSINGS,
}

# Templates of an instruction with how often each is used; {article} is the tone's "a" or "an".
TEMPLATES: tuple[tuple[str, int], ...] = (
    (
        "Write {article} {tone} {form} about {topic} for {audience}: {sentences} sentences, "
        "mention the {word}, end with a {closing}.",
        4,
    ),
    (
        "For {audience}, write {article} {tone} {form} about {topic} in {sentences} sentences. "
        "Mention the {word} and end with a {closing}.",
        2,
    ),
    (
        "Give {audience} {article} {tone} {form} about {topic}. Use {sentences} sentences, "
        "mention the {word}, finish with a {closing}.",
        2,
    ),
    (
        "In {sentences} sentences, write {audience} {article} {tone} {form} on {topic} "
        "that mentions the {word}. End with a {closing}.",
        1,
    ),
    (
        "I need {article} {tone} {form} about {topic} for {audience}. End its {sentences} sentences "
        "with a {closing}, and mention the {word}.",
        1,
    ),
)
