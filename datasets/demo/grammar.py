"""A probabilistic grammar of everyday English, for synthesising training speech.

The grammar is a set of rewriting rules over a few word classes chosen by meaning (people, animals, foods, tools and
so on), so that verbs meet objects they can plausibly act on. The text of a rule holds three kinds of marks:

* ``<name>`` is replaced by a word of the class, or by an expansion of the rule, of that name.
* ``<name.f>`` does the same in the form ``f``: ``p`` plural noun; ``b`` base, ``s`` third person singular, ``d`` past,
  ``n`` past participle or ``g`` present participle of a verb; ``*`` the form in which the rule itself was asked for.
* ``*word`` is that verb, in the form in which the rule was asked for.

A sentence holds at most one person spoken of as he or she; the names ``kin``, ``he``, ``his`` and ``him`` agree.
Words with several pronunciations for one spelling are avoided, so that the text decides how a sentence sounds.
"""

import random
import re

from imfbench.datasets.demo.grammar_words import WORDS

MIN_WORDS = 6
MAX_WORDS = 18

_RULES: dict[str, list[str]] = {
    name: [part.strip() for part in re.sub(r"\s+", " ", text).split("|")]
    for name, text in {
        "one": """the <person> | the <person> | the <padj> <person> | the <padj> <person> | a <padj> <person> | our
            <padj> <person> | that <padj> <person> | a <person> from the <town> | the <person> in the <garment> | the
            <person> with the <tadj> <thing>""",
        "many": """the <person.p> | the <padj> <person.p> | <num> <padj> <person.p> | these <person.p> | some
            <person.p> | most <person.p> | those <padj> <person.p> | the <person.p> and the <person.p> | both
            <person.p>""",
        "any": "<one> | <one> | <many> | <kin> | we | they | I",
        "beast": "the <animal> | the <aadj> <animal> | a <aadj> <animal> | our <animal> | that <aadj> <animal>",
        "beasts": "the <aadj> <animal.p> | <num> <animal.p> | the <animal.p> | several <aadj> <animal.p>",
        "foods": """a <fadj> <food> | the <food> | the last <food> | another <food> | the <fadj> <food> | a <food> and
            a <food>""",
        "things": """the <thing> | a <tadj> <thing> | the <tadj> <thing> | <num> <tadj> <thing.p> | my <thing> |
            several <thing.p> | a <thing> and a <thing> | these <tadj> <thing.p>""",
        "garments": "a <gadj> <garment> | the <gadj> <garment> | two <garment.p> | that <gadj> <garment>",
        "texts": "a <xadj> <text> | the <xadj> <text> | the <text> about the <animal> | <num> <xadj> <text.p>",
        "ideas": "the <idea> | the <iadj> <idea> | our <idea> | that <iadj> <idea> | a <iadj> <idea>",
        "where": """in the <room> | near the <nature> | at the <building> | behind the <furniture> | by the
            <furniture> | beside the <ladj> <building> | outside the <building> | under the <furniture> | among the
            <animal.p> | beyond the <nature> | in the <ladj> <building>""",
        "toward": """through the <ladj> <nature> | toward the <building> | around the <nature> | past the <building> |
            to the <ladj> <building> | across the <nature> | along the <nature> with <beast> | into the <room>""",
        "past": """yesterday | last night | this morning | on Thursday | last winter | in the middle of the night | an
            hour ago | during the storm | after breakfast | on Wednesday evening | last January | before dawn | three
            years ago | at noon | one rainy afternoon | at the beginning of the month""",
        "future": """tomorrow | next week | on Saturday | in the spring | tonight | next month | in an hour | after
            lunch | before sunrise | on my birthday | soon | next Thursday | in July""",
        "habit": """every morning | on Sundays | in the summer | after supper | at night | before school | whenever it
            rains | in August | every other Tuesday | in foggy weather""",
        "vp": """<vfood.*> <foods> | <vthing.*> <things> | <vthing.*> <things> | <vperson.*> <one> | <vanimal.*>
            <beast> | <vplace.*> the <ladj> <nature> | <vbuild.*> the <ladj> <building> | <videa.*> <ideas> |
            <vgarment.*> <garments> | <vmusic.*> the <instrument> | <vtext.*> <texts> | <vi.*> <where> | <vmove.*>
            <toward> | *point at <beast> | *give <things> to <one> | *put <things> <where> | *show <one> <things> |
            *look for <things> | *laugh at <ideas> | *talk about <ideas>""",
        "act": """<vfood.*> the <food> | <vthing.*> the <thing> | <vperson.*> the <person> | <vanimal.*> the <animal>
            | <vbuild.*> the <building> | <vgarment.*> the <garment> | <vmusic.*> the <instrument> | <vi.*> <manner> |
            <vtext.*> the <text> | <vmove.*> <toward>""",
        "order": """bring me the <tadj> <thing> | put the <thing> <where> | give the <aadj> <animal> <foods> | wash
            the <gadj> <garment> | hide the <thing> and the <thing> | show the <person> your <thing> | finish your
            <text> | mend the <tadj> <thing> | chop the <food.p> | feed the <animal.p> | follow the <person> | fold
            the <gadj> <garment> | tune the <instrument> | measure the <tadj> <thing> | ask the <person> about the
            <thing> | choose a <thing> | leave the <building> <manner> | think about the <idea>""",
        "creature": """<vbeast.*> <where> | <vbeast.*> <where> | *chase <beasts> <toward> | *follow the <person>
            <toward> | *frighten the <padj> <person> | *devour <foods> | *stare at the <person> | *gnaw the
            <thing>""",
        "sky": """the rain *pour | the thunder *rumble | the sun *shine | the snow *melt | the fog *vanish | the moon
            *rise | the church bell *ring | the breeze *rustle the curtains | the power *fail | the ice *crack | the
            weather *change | the earth *tremble""",
        "event": "<any> <vp.d> | <kin> <vp.d> | <beast> <creature.d> | <sky.d> | <one> <act.d> | <many> <act.d>",
        "short": "<one> <act.d> | <kin> <act.d> | <beast> <vbeast.d> <where> | <sky.d> | we <act.d>",
        "help": "can | could | should | might | must | would",
        "good": """a great pleasure | rather foolish | harder than it looks | a matter of practice | my usual choice |
            a pointless exercise | not always easy | a joyful occasion | the best way to spend the day | strictly
            forbidden here | an unusual way to earn a living | worth the trouble""",
        "end": """and nobody noticed | but nobody cared | and everyone cheered | or so they claim | which annoyed the
            <person.p> | to the joy of the <person.p> | much to my surprise | as the <person> predicted""",
    }.items()
}

_PATTERNS = re.split(
    r"(?<=[.?!])\s+",
    """<any> <vp.d> <past>. <one> <vp.d>, <end>. <one> <adv> <vp.d> and <act.d>. <beast> <creature.d> <past>. <beasts>
    <creature.d>, <end>. <opener>, <event>. <opener>, <one> began to <vp.b>. <past>, <event>. <one> is <vp.g>
    because <short>. <many> are <vp.g> for lack of <mass>. <kin> has already <vp.n>, but I have not. <many> have
    never <act.n> without a <thing>. <kin> will <vp.b> <future>. we are going to <vp.b> <future>. <kin> <freq>
    <vp.s> <habit>. <many> <freq> <vp.b> <habit>. <kin> had <vp.n> before <short>. <kin> was <vp.g> when <short>.
    while <beast> was <vbeast.g> <where>, <short>. although <sky.d>, <any> <vp.d>. because <short>, <kin> had to
    <vp.b>. when <sky.s>, <many> <freq> <act.b>. as soon as <short>, <many> <vp.d>. if <sky.s> <future>, you <help>
    <vp.b>. if I had <num> <thing.p>, I would <vp.b>. unless <one> <act.s>, nobody will <act.b>. until <short>,
    nobody dared to <act.b>. <one>, who <freq> <act.d>, <vp.d>. the <person> who <vp.d> is <padj> and <padj>. the
    <thing> that <kin> <vthing.d> was <tadj> and <tadj>. the <tadj> <thing> was <vthing.n> by <one> <past>. the
    <gadj> <garment.p> were <vgarment.n> <where> <past>. the <thing> <where> is <comp> than the <thing> <where>.
    that was the <sup> <animal> we had ever seen <where>. there is a <tadj> <thing> <where>, and it belongs to
    <kin>. there were <num> <animal.p> <where>, all of them <aadj>. <act.g> is <good>, especially <habit>. to
    <act.b> is <good>, <kin> once told me. it takes <mass>, <mass>, and <mass> to <act.b>. we bought <num>
    <thing.p>, a <gadj> <garment>, and some <fadj> <food.p>. the <room> was full of <thing.p>, <food.p>, and <aadj>
    <animal.p>. <kin> packed a <garment>, a <thing>, and a <text> for the journey. the <person>, the <person>, and
    the <person> <vp.d>. <kin> <vthing.d> the <thing>, <vanimal.d> the <animal>, and <act.d>. <kin> <say.d> that
    <event>. <one> told us that <short>, but <kin> disagreed. <kin> asked whether the <person> had <vp.n>. <many>
    wondered why <short>. according to the <person>, <short> <past>. I thought, said the <person>, that the <animal>
    had <vbeast.n> <where>. come inside, said <kin>, and <order>. <kin> was so <padj> that <he> <vp.d>. <kin> was
    too <padj> to <vp.b>. <kin> was <feel> when <he> saw <his> <garment> <where>. the <person> gave <kin> a <thing>,
    so <he> smiled and <act.d>. <kin> lost <his> <thing>, and now <he> <help> <vp.b>. neither the <person> nor the
    <person> wanted to <vp.b>. either <kin> or the <person> will <act.b> <future>. instead of <act.g>, <one> <vp.d>.
    after <act.g>, <many> <vp.d>. the <iadj> <idea> was about the <animal>, not the <thing>. nobody <where> believed
    the <xadj> <text> about the <animal.p>. <where>, <kin> found a <tadj> <thing> and <num> <food.p>. I would rather
    <act.b> than <act.b>. you should <adv> <act.b>, for <short>. did <one> <vp.b> <past>? did you really <act.b>
    while the <person> was <vi.g>? will <kin> <vp.b> <future>? can the <animal.p> <where> really be so <aadj>? has
    <kin> ever <vp.n>? have you ever <vp.n> <habit>? why did <one> <vp.b>? when will <many> <vp.b>? where did <kin>
    find such a <tadj> <thing>? who <vp.d> <past>, and why? which <person> <vp.d> <past>? what would happen if
    <beast> <creature.d>? how many <thing.p> does the <padj> <person> own? how often do <many> <vp.b>? would you
    rather have a <aadj> <animal> or a <tadj> <thing>? do you know whether <short>? <kin> <act.d>, didn't <he>? you
    won't <vp.b> <future>, will you? isn't that the <person> who <act.d>? couldn't we <act.b> <future> instead?
    <order>, please. please <order> before <sky.s>. <order>, or <kin> will be <feel>. don't <act.b> until the
    <person> returns from the <nature>. never <act.b> when <beast> is <vbeast.g> nearby. let's <act.b> <future> and
    then <act.b>. <order>, and then <order>! don't you dare <act.b> <where>! what a <iadj> <idea> it was, and how
    <padj> we were! what <aadj> <animal.p> those <person.p> have! how <manner_ly> the <person> <vi.d> <where>! look,
    <beast> is <vbeast.g> <where>! hurry, the <animal.p> are <vbeast.g> <where>! oh no, <kin> has <vp.n> again! I
    can't believe that <short>! watch out, there's a <aadj> <animal> <where>! hooray, we finally <vp.d>! when <kin>
    <act.d>, <many> cheered for <him>.""",
)

WORDS["manner_ly"] = [word for word in WORDS["manner"] if "_" not in word]

_PERSON_FORMS = {"she": {"he": "she", "his": "her", "him": "her"}, "he": {"he": "he", "his": "his", "him": "him"}}

_PLURALS = dict(
    zip(
        [
            "man",
            "woman",
            "child",
            "mouse",
            "goose",
            "sheep",
            "moose",
            "wolf",
            "calf",
            "knife",
            "thief",
            "fisherman",
            "milkman",
            "salmon",
            "potato",
            "tomato",
            "mango",
            "jellyfish",
            "shrimp",
            "scarf",
        ],
        [
            "men",
            "women",
            "children",
            "mice",
            "geese",
            "sheep",
            "moose",
            "wolves",
            "calves",
            "knives",
            "thieves",
            "fishermen",
            "milkmen",
            "salmon",
            "potatoes",
            "tomatoes",
            "mangoes",
            "jellyfish",
            "shrimp",
            "scarves",
        ],
        strict=True,
    )
)

_IRREGULAR_VERBS = {
    words[0]: (words[1], words[2])
    for words in map(
        str.split,
        [
            "eat ate eaten",
            "steal stole stolen",
            "choose chose chosen",
            "buy bought bought",
            "hide hid hidden",
            "lose lost lost\n        ",
            "find found found",
            "sell sold sold",
            "throw threw thrown",
            "bring brought brought",
            "shake shook shaken",
            "break broke broken\n        ",
            "keep kept kept",
            "teach taught taught",
            "forgive forgave forgiven",
            "catch caught caught",
            "meet met met",
            "feed fed fed\n        ",
            "leave left left",
            "build built built",
            "understand understood understood",
            "forget forgot forgotten",
            "wear wore worn\n        ",
            "sew sewed sewn",
            "hang hung hung",
            "shrink shrank shrunk",
            "write wrote written",
            "sleep slept slept",
            "sing sang sung\n        ",
            "weep wept wept",
            "sit sat sat",
            "stand stood stood",
            "think thought thought",
            "kneel knelt knelt",
            "run ran run\n        ",
            "ride rode ridden",
            "drive drove driven",
            "swim swam swum",
            "dig dug dug",
            "leap leapt leapt",
            "give gave given",
            "put put put\n        ",
            "show showed shown",
            "say said said",
            "swear swore sworn",
            "hear heard heard",
            "know knew known",
            "rise rose risen\n        ",
            "ring rang rung",
            "shine shone shone",
        ],
    )
}

_DOUBLED = {"forget", "regret", "admit"}
_AN_EXCEPTIONS = re.compile(r"^(?:hour|honest)", re.IGNORECASE)
_A_EXCEPTIONS = re.compile(r"^(?:uni|use|one|eu)", re.IGNORECASE)
_MARK = re.compile(r"<(\w+)(?:\.(\w|\*))?>|\*(\w+)")


def _plural(noun: str) -> str:
    """Return the plural of a noun; of a phrase with "of", the plural of its head."""
    head, of, rest = noun.partition("_of_")
    before, gap, last = head.rpartition("_")
    if last in _PLURALS:
        last = _PLURALS[last]
    elif re.search(r"(?:[sxz]|ch|sh)$", last):
        last += "es"
    elif re.search(r"[^aeiou]y$", last):
        last = last[:-1] + "ies"
    else:
        last += "s"
    return before + gap + last + of + rest


def _conjugate(verb: str, form: str) -> str:
    """Return a verb in one of the forms b, s, d, n and g."""
    if form == "b":
        return verb
    if form == "s":
        return _plural(verb)
    if form in "dn" and verb in _IRREGULAR_VERBS:
        return _IRREGULAR_VERBS[verb]["dn".index(form)]
    ending = "ing" if form == "g" else "ed"
    if verb in _DOUBLED or re.fullmatch(r"[^aeiou]*[aeiou][^aeiouwxy]", verb):
        return verb + verb[-1] + ending
    if verb.endswith("e"):
        return verb[:-1] + ending
    if form != "g" and re.search(r"[^aeiou]y$", verb):
        return verb[:-1] + "ied"
    return verb + ending


def _expand(text: str, form: str, pronouns: str, rng: random.Random) -> str:
    """Rewrite every mark in a rule's text.

    Args:
        text: Text with marks.
        form: The form that ``*`` stands for.
        pronouns: "he" or "she", for the one person so spoken of.
        rng: Source of every choice.

    Returns:
        The text without marks.
    """

    def rewrite(match: re.Match[str]) -> str:
        name, asked, verb = match.groups()
        if verb:
            return _conjugate(verb, form or "b")
        asked = form if asked == "*" else asked or ""
        if name in _PERSON_FORMS["he"]:
            return _PERSON_FORMS[pronouns][name]
        if name == "kin":
            name = "kin_f" if pronouns == "she" else "kin_m"
        if name in _RULES:
            return _expand(rng.choice(_RULES[name]), asked, pronouns, rng)
        word = rng.choice(WORDS[name])
        if asked == "p":
            return _plural(word)
        return _conjugate(word, asked) if asked else word

    return _MARK.sub(rewrite, text)


def _finish(text: str) -> str:
    """Choose between a and an, open the compound words and start with a capital letter."""
    words = text.replace("_", " ").split()
    for index, word in enumerate(words[:-1]):
        following = words[index + 1]
        vowel = following[0].lower() in "aeiou" and not _A_EXCEPTIONS.match(following)
        if word == "a" and (vowel or _AN_EXCEPTIONS.match(following)):
            words[index] = "an"
    line = " ".join(words)
    return line[0].upper() + line[1:]


def _acceptable(sentence: str) -> bool:
    """Tell whether a sentence has a fitting length and repeats no telling word."""
    words = re.findall(r"[a-z']+", sentence.lower())
    telling = [re.sub(r"(?:es|s|ed|ing)$", "", word) for word in words if len(word) > 3]
    repeated = len(set(telling)) < len(telling) or words.count("i") + words.count("we") > 2
    return MIN_WORDS <= len(words) <= MAX_WORDS and not repeated


def sentences(count: int, seed: int) -> list[str]:
    """Produce natural-sounding English sentences.

    Args:
        count: How many sentences to produce.
        seed: Seed of the choices; the same count and seed always give the same sentences.

    Returns:
        Distinct sentences of 6 to 18 words, each ending in a period, a question mark or an exclamation mark.

    Raises:
        ValueError: If count is negative.
    """
    if count < 0:
        raise ValueError(f"count must not be negative, got {count}")
    rng = random.Random(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        pronouns = rng.choice(("he", "she"))
        sentence = _finish(_expand(rng.choice(_PATTERNS), "", pronouns, rng))
        if _acceptable(sentence):
            found[sentence] = None
    return list(found)
