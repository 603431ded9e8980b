"""English tokens as COCO caption evaluation makes them: the Penn Treebank scheme of Stanford's PTBTokenizer, no Java.

The Treebank scheme splits contractions (`ca n't`, `dog 's`) and keeps hyphenated words, numbers and abbreviations
whole. COCO's evaluation lower-cases the tokens and drops seventeen of them, which are punctuation.

How it works: at each place all rules are tried and the longest match wins, of equals the first. What a rule wants to
see after its token counts towards the length. So `can` before `n't` beats `can` alone, as in the original.

The rules were written from what the original prints (CoreNLP 3.4.1, `-preserveLines -lowerCase`, the one in
pycocoevalcap), on lists of words, all characters of the basic plane, and running text.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

# --- characters -------------------------------------------------------------------------------------------------------
# Inside rules a letter is any character from U+0080 on that `_spell` has let through and that is none of these signs.
_QUOTE = "'\u2019"  # apostrophes
_TICK = _QUOTE + "`\u2018\u201b"  # what passes for one in some rules
_QUOTES = r"`\xab\xbb\u2018-\u201f\u2039\u203a"  # runs of these are one token
_LETTER = r"A-Za-z\x80-\xaa\xac-\xba\xbc-\u200f\u2012-\u2017\u2020-\u2038\u203b-\u2043\u2045-\uffff"
_ALNUM = "0-9" + _LETTER
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")  # deleted
_SYMBOL = "\x01"  # marks the next character as a token of its own; a control, so it is in no sentence by then

# Not letters to Unicode, but part of a word: mostly accents and vowel signs (ranges of code points, hexadecimal).
_WORD_SIGNS = """
2c2-2c5 2d2-2df 2e5-2eb 2ed 2ef-36f 375 378-379 384-385 3f6 483-487 55a-55f 591-5bd 5bf 5c1-5c2 5c4-5c5 5c7 615-61a
64b-65e 670 6d6-6e4 6e7-6ed 6fd-6fe 70f 711 730-74c 7a6-7b0 7eb-7f3 900-903 93c 93e-94e 951-955 962-963 981-983 9bc
9be-9cd 9d7 9e2-9e3 a01-a03 a3c-a4f a81-a83 abc abe-acf b82 bbe-bcd c01-c03 c3e-c56 d3e-d48 e31 e34-e3a e47-e4e eb1
eb4-ebc ec8-ecd"""
# Tokens of their own. All other signs are deleted, and everything beyond the basic plane (emoji) with them.
_SIGNS = """
a1-a9 ac-b4 b6-b9 bc-bf d7 f7 37e 387 589 5be 5c0 5c3 5c6 5f3-603 606-60c 614 61b 61e-61f 66a 66d 6d4 700-70d 7f6-7f8
964-965 e3f e4f 1fbd 2016-2023 2030-203b 203e-2042 2070 2074-207e 2080-208e 20a0 20a4 20ac 2100-2101 2103-2106
2108-2109 2114 2116-2118 211e-2123 2125 2127 2129 212e 213a-213b 2140-2144 214a-214d 214f 2153-215e 2190-2bff 3001-3002
3012 30fb ff01-ff0f ff1a-ff20 ff3b-ff40 ff5b-ff65 ffe0-ffe1 ffe5-ffe6"""


def _code_points(text: str) -> frozenset[str]:
    """The characters of a list of code points and ranges."""
    found: set[str] = set()
    for item in text.split():
        first, _, last = item.partition("-")
        found.update(map(chr, range(int(first, 16), int(last or first, 16) + 1)))
    return frozenset(found)


_WORD_SIGN_SET, _SIGN_SET = _code_points(_WORD_SIGNS), _code_points(_SIGNS)
_SPELLED = {
    "\xad": "",  # soft hyphen
    "\x80": f" {_SYMBOL}\u20ac ",  # the C1 controls stand for Windows-1252
    **{"\x91": "\u2018", "\x92": "\u2019", "\x93": "\u201c", "\x94": "\u201d"},
    # dashes and ellipsis would be dropped later
    **dict.fromkeys("\x85\x96\x97\u2013\u2014\u2015\u2026", " "),
    # signs that the rules know
    **dict.fromkeys("\u2010\u2011\u2044\xab\xbb\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u201f\u2039\u203a", None),
}


@lru_cache(maxsize=4096)
def _spell(sign: str) -> str:
    """What to write for a character outside ASCII before the rules see it."""
    if sign in _SPELLED:
        spelled = _SPELLED[sign]
        return sign if spelled is None else spelled
    if sign > "\uffff":
        return " "
    category = unicodedata.category(sign)
    if category[0] == "L" or category == "Nd" or sign in _WORD_SIGN_SET:
        return sign
    return f" {_SYMBOL}{sign} " if sign in _SIGN_SET else " "


# --- word lists -------------------------------------------------------------------------------------------------------
_ABBREVIATIONS = """
adj adm adv al ala alex apr ariz assn assoc asst atty attys aug ave bancorp bhd bldg blvd brig bros calif capt cf cie
cmdr co col colo comdr conn corp cos cpl ct dak dec dept det dr drs elec ens esq est etc ext feb fla fri ft ga gen gov
govs hon inc ind insp intl invt jan jos jr jul jun kan kans ky lieut lt ltd maj mar md messrs mich minn mlle mme mo mon
mont mr mrs ms msgr mt natl neb nev nov oct okla penn pfc ph plc pres prof profs pvt rd rep reps rev rt sen sens sep
sept seq sfc sgt spc sq sr st ste supt supts sys tel tenn thu thurs treas tue tues univ va vs vt wed wis wisc wm wyo"""
_ABBREVIATIONS_NOT_UPPER = "mfg mtg pte ptes ppte pptes pty ptys ppty pptys"
_ABBREVIATIONS_NOT_LOWER = "ark az del ill la mass miss ore pa tex wash"
_ABBREVIATIONS_OF_NUMBERS = "art ca fig figs no nos op pp prop"
# After `plan B.` these begin a sentence, so the period is not part of the letter.
_STARTERS = """
A About According Additionally After An As At But Earlier He Her Here However If In It Last Many More Now Once One
Other Our She Since So Some Such That The Their Then There These They This We What When While Yet You"""
_FILE_SUFFIXES = """
bat bmp c class cgi cpp dll doc docx exe gif gz h htm html jar java jpeg jpg mov mp3 pdf php pl png ppt ps py sql tar
txt wav x xml zip"""


def _any(words: str) -> str:
    """A pattern for one of the words of a text."""
    return "(?:" + "|".join(sorted(words.split(), key=len, reverse=True)) + ")"


# --- rules ------------------------------------------------------------------------------------------------------------
_NUMBER = r"(?:[0-9]*(?:[.:,][0-9]+)+|[0-9]+)"
_WORD = rf"[{_LETTER}][{_ALNUM}]*(?:[.!?][{_LETTER}][{_ALNUM}]*)*"
_INITIAL = r"[A-Za-z]\."
_ELIDED = rf"[dDoOlL][{_TICK}][{_ALNUM}]{{2,}}"  # l'homme
_ENDING = "(?i:[smd]|re|ve|ll)"
_NO_LETTER = rf"(?![{_LETTER}])"
_PART = rf"(?:{_ELIDED}|(?:{_INITIAL}){{2,}}|[{_ALNUM}]+)"
_COMPOUND = (
    rf"(?:(?:{_ELIDED}|[{_ALNUM}]+(?:[.,]+[{_ALNUM}]+)*\.?)[-\u2010\u2011]|[{_ALNUM}]+_)"
    rf"{_PART}(?:[-_\u2010\u2011]{_PART})*"
)
_PLAIN_THING = "[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}"
_HOST, _PATH, _PATH_END = r"[^\s\"<>|.!?(){},]+\.", r"[^\s\"<>|()]+", r"[^\s\"<>|.!?(){},-]"

# Each has one group, the token; what follows the group is context.
_RULES = tuple(
    re.compile(pattern)
    for pattern in (
        # assimilations, contractions, words
        rf"((?i:can))(?i:not){_NO_LETTER}",
        rf"((?i:gon|wan))(?i:na){_NO_LETTER}",
        rf"((?i:got))(?i:ta){_NO_LETTER}",
        rf"((?i:lem|gim))(?i:me){_NO_LETTER}",
        r"('[tT])(?i:is|was)",
        rf"({_WORD})(?:[{_QUOTE}]{_ENDING}{_NO_LETTER})?",
        rf"([A-Za-z]*[A-MO-Za-mo-z])[nN][{_TICK}][tT]",
        rf"([nN][{_TICK}][tT])",
        rf"([{_QUOTE}]{_ENDING})(?:[^A-Za-z]|$)",
        # words with an apostrophe: 'em, 'n', '90s, ol', O'Brien, ma'am
        rf"([{_QUOTE}](?:(?i:em|till?|cause)|[nN][{_QUOTE}]?|[2-9]0s))",
        rf"([{_QUOTE}][0-9][0-9])(?=\s|$)",
        rf"([dDjJlLyY][{_QUOTE}]|(?i:ol|dunkin|somethin)[{_QUOTE}]|d[{_QUOTE}]y[ae])",
        rf"([cC][{_QUOTE}](?:mon|est)|[sS][{_QUOTE}]mores|[cC]ap[{_QUOTE}]n|[eE][{_QUOTE}]er|[lL]i[{_QUOTE}]l)",
        rf"([A-HJ-XZno][{_TICK}][{_LETTER}]{{2}}[{_ALNUM}]*)",
        rf"([{_LETTER}]+[aeiouyAEIOUY][{_QUOTE}][aeiouA-Z][{_LETTER}]*)",
        rf"({_ELIDED})",
        # abbreviations and initials, with their period
        rf"((?i:{_any(_ABBREVIATIONS)})\.)",
        rf"({_any(_ABBREVIATIONS_NOT_UPPER + ' ' + _ABBREVIATIONS_NOT_UPPER.title())}\.)",
        rf"({_any(_ABBREVIATIONS_NOT_LOWER.title() + ' ' + _ABBREVIATIONS_NOT_LOWER.upper())}\.)",
        rf"((?i:{_any(_ABBREVIATIONS_OF_NUMBERS)})\.)(?=\s?[0-9])",
        rf"((?:{_WORD}|{_COMPOUND}|[{_ALNUM}]+)\.)[,;:]",
        rf"((?i:ph)\.[dD]\.|(?:{_INITIAL})+)",
        rf"([A-Za-z])\.\s+{_any(_STARTERS)}(?:\s|$)",
        # numbers, fractions, dates, telephone numbers, money
        rf"([-+]?{_NUMBER})",
        r"((?:[0-9]{1,4}[- ])?[0-9]{1,4}(?:\\?/|\u2044)[0-9]{1,4})",
        r"([0-9]{1,2}[-/][0-9]{1,2}[-/][0-9]{2,4})",
        r"((?:\([0-9]{2,3}\) ?|(?:\+\+?)?(?:[0-9]{2,4}[- /])?[0-9]{2,4}[- /.])[0-9]{3,4}[- /.]?[0-9]{3,5})",
        r"((?:\+\+?)?[0-9]{2,4}\.[0-9]{2,4}\.[0-9]{3,5})",
        r"([A-Z]*\$)",
        # compounds with hyphens, low lines, slashes, ampersands
        rf"([{_ALNUM}]+)",
        rf"({_COMPOUND})",
        rf"({_PLAIN_THING}(?:\\?/{_PLAIN_THING}){{1,2}})",
        r"([A-Z]+(?:(?:[+&]|&amp;)[A-Z]+)+|(?i:anti|pro)-)",
        r"([cC]\+\+|[cCfF]#)",
        # addresses, names of files and of people, markup
        rf"(@[A-Za-z_][A-Za-z_0-9]*|#[{_LETTER}]+)",
        r"([A-Za-z0-9][^\s\"<>|()]*@(?:[^\s\"<>|().]+\.)*[^\s\"<>|().]+)",
        rf"((?i:https?)://{_PATH}{_PATH_END})",
        rf"(www\.(?:{_HOST})+[a-zA-Z]{{2,4}}(?:/{_PATH}{_PATH_END})?)",
        rf"((?:[^\s\"`'<>|.!?(){{}},\-_$]+\.)+(?:com|net|org|edu)(?:/{_PATH}{_PATH_END})?)",
        rf"([{_ALNUM}]+\.(?i:{_any(_FILE_SUFFIXES)}))(?![{_ALNUM}])",
        r"(</?[A-Za-z!?][^>]*>)",
        r"(&(?:[lg]t|amp|quot|apos|nbsp|[mn]dash|MD);|&#[0-9]+;)",
        # smileys
        r"([<>]?[:;=]['o-]?[()DdpP\]\[O{@|\\])(?![A-Za-z])",
        r"(\(?[\^x=~<>-]_[\^x=~<>-]\)?)",
        # punctuation
        rf"(')[{_LETTER}][^\s]",
        rf"([{_QUOTE}]{_ENDING})",
        rf"([{_QUOTES}]+)",
        r"([?!]+|@@+|##+|-----+|_+|\\?\*+|<<|>>|''|--+|\.\.\.+|\. \. \.)",
        rf"{_SYMBOL}(.)",
        r"(\S)",
    )
)
# A run of letters before a space is a token whatever the rules say, but for these.
_QUICK = re.compile(r"[A-Za-z]+(?=\s|$)")
_ASSIMILATED = frozenset({"cannot", "gonna", "wanna", "gotta", "lemme", "gimme"})

# --- how tokens are printed -------------------------------------------------------------------------------------------
_DROPPED = re.compile(r"''|``|['`\".,?!:;-]|--{1,3}|\.\.\.+|\. \. \.|&(?:quot|apos|nbsp|[mn]dash|md);")
_PRINTED = {
    **{"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"},
    **{"&lt;": "<", "&gt;": ">", "\xa2": "cents", "\xa3": "#", "\xa4": "$", "\u20a0": "$", "\u20ac": "$"},
    **{"\xbc": "1/4", "\xbd": "1/2", "\xbe": "3/4", "\u2153": "1/3", "\u2154": "2/3"},
}
_QUOTES_ALONE = re.compile(f"[{_QUOTES}]+")
_QUOTE_MARKS = str.maketrans(
    {
        **dict.fromkeys("\u2018\u2039\u201b", "`"),
        **dict.fromkeys("\u2019\u203a", "'"),
        **dict.fromkeys("\u201c\xab", "``"),
        **dict.fromkeys("\u201d\xbb", "''"),
    }
)
_CONTRACTED = re.compile(rf"[{_QUOTE}](?:[smd]|re|ve|ll)|n[{_TICK}]t")
_CONTRACTION_MARKS = str.maketrans("\u2019\u2018\u201b", "'``")
_MARKUP = re.compile("</?[a-z!?]")


def _printed(token: str) -> str:
    """The token in its printed form, lower case; empty when it is one of those that are dropped."""
    token = token.lower()
    if token.isalpha():
        return token
    if _QUOTES_ALONE.fullmatch(token):
        token = token.translate(_QUOTE_MARKS)
    if _DROPPED.fullmatch(token):
        return ""
    if token in _PRINTED:
        return _PRINTED[token]
    if _CONTRACTED.fullmatch(token):
        return token.translate(_CONTRACTION_MARKS)
    if not _MARKUP.match(token):
        token = token.replace("(", "-lrb-").replace(")", "-rrb-").replace("&amp;", "&")
    return token.replace(" ", "\xa0")


def ptb_tokenize(sentence: str) -> list[str]:
    """The lower-case PTB tokens of an English sentence, without the seventeen that COCO's evaluation drops.

    `A dog's ball isn't red, it's $5.` -> a dog 's ball is n't red it 's $ 5. Brackets stay, as `-lrb-` and so on,
    because COCO's list has them in capitals. A token may hold a no-break space (`1 1/2`, telephone numbers).

    Equal to pycocoevalcap's PTBTokenizer on all 35,455 captions of Flickr8k (train and dev), 29,999 of Multi30k and all
    but one of 60,000 sentences of film reviews. What differs: letters newer than Unicode 6.0 (the original drops them);
    rare smileys; malformed addresses; the original looks past the end of a line, so that there the next caption may
    decide about the last period of this one (`plan B.`), and it counts a line more after U+2028.
    """
    text = _CONTROLS.sub(" ", sentence)
    if not text.isascii():
        text = "".join(sign if sign < "\x80" else _spell(sign) for sign in text)
    tokens: list[str] = []
    place, end = 0, len(text)
    while place < end:
        if text[place].isspace():
            place += 1
            continue
        quick = _QUICK.match(text, place)
        if quick is not None and (word := quick.group().lower()) not in _ASSIMILATED:
            tokens.append(word)
            place = quick.end()
            continue
        longest = place
        token, after = "", place + 1
        for rule in _RULES:
            match = rule.match(text, place)
            if match is not None and match.end() > longest:
                longest, token, after = match.end(), match.group(1), match.end(1)
        place = after
        if token and (printed := _printed(token)):
            tokens.append(printed)
    return tokens
