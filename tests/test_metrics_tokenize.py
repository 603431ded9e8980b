"""The PTB tokenizer against what the original (CoreNLP 3.4.1 in pycocoevalcap) printed, and against it live."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from recur.metrics.tokenize import ptb_tokenize

# Sentence, and the original's tokens joined with spaces after COCO's seventeen are dropped.
CASES: list[tuple[str, str]] = [
    (
        "A child in a pink dress is climbing up a set of stairs in an entry way .",
        "a child in a pink dress is climbing up a set of stairs in an entry way",
    ),
    ("Two dogs, one black and one white, run.", "two dogs one black and one white run"),
    (
        "The dog's owner isn't here; he can't come, they'll wait and we've left.",
        "the dog 's owner is n't here he ca n't come they 'll wait and we 've left",
    ),
    (
        "I'm gonna go, you gotta stay, she wanna play, lemme see, gimme that",
        "i 'm gon na go you got ta stay she wan na play lem me see gim me that",
    ),
    ("We cannot see the man who cannot's", "we can not see the man who cannot 's"),
    ("CANNOT GONNA Gotta", "can not gon na got ta"),
    (
        "I'd've shouldn't've he'd've weren't. DON'T WE'RE I'M",
        "i 'd 've should n't 've he 'd 've were n't do n't we 're i 'm",
    ),
    (
        "he's's it'sa i'mma didn'tx ain't shan't won't n't",
        "he 's 's it sa i mma did n'tx ai n't sha n't wo n't n't",
    ),
    (
        "it’s don’t they’re boys’ O’Brien ’tis ’em ’90s rock ’n’ roll",
        "it 's do n't they 're boys o’brien tis ’em ’90s rock ’n’ roll",
    ),
    ("don‘t don`t we‘re o`clock", "do n`t do n`t we re o`clock"),
    (
        "'tis 'Twas 'tisn't 'twere 'em 'til 'till 'cause 'bout 'n'",
        "'t is 't was 't is n't twere 'em 'til 'till 'cause bout 'n'",
    ),
    ("rock'n'roll rock 'n roll fish'n'chips more'n", "rock 'n' roll rock 'n roll fish 'n' chips more 'n"),
    (
        "o'clock O'Brien o'er e'er e'en ma'am ne'er-do-well Hawai'i c'mon cap'n ol' y'all d'you d'ye j'ai "
        "l'homme d'art-x",
        "o'clock o'brien o'er e'er e en ma'am ne'er do-well hawai'i c'mon cap'n ol' y' all d'you d'ye j' ai "
        "l'homme d'art-x",
    ),
    (
        "A's p's and q's the boys' the boy's. (boys') \"boys'\" McDonald's. s'mores li'l",
        "a 's p 's and q 's the boys the boy 's -lrb- boys -rrb- boys mcdonald 's s'mores li'l",
    ),
    (
        "the '90s 90's '05 '05. 1960's '60's 5'10\" 6' 2\" 5'x6'",
        "the '90s 90 's '05 05 1960 's 60 's 5 10 6 2 5 x6",
    ),
    (
        "a t-shirt, T-shirt - -- --- – — snow-covered a--b word- -word x–y 10–15",
        "a t-shirt t-shirt snow-covered a b word word x y 10 15",
    ),
    ("'quoted' \"quoted\" ``latex'' “curly” ‘single’ «x» ‹y› '''", "quoted quoted latex curly single x y"),
    ("wait... what.. ok.... . . . … done", "wait what ok done"),
    ("what?! what?? !!! ?!? a?b hello.World 5!5 ? !", "what ?! what ?? !!! ?!? a?b hello.world 5 5"),
    (
        "Mr. Smith and Dr. No, Mrs. x, St. Louis, Inc. the Corp. Jr. vs. etc.",
        "mr. smith and dr. no mrs. x st. louis inc. the corp. jr. vs. etc.",
    ),
    (
        "U.S. the U.S. U.S.A. D.C. a.m. p.m. e.g. i.e. s.c.u.b.a. Ph.D. R.V. a.k.a. A.",
        "u.s. the u.s. u.s.a. d.c. a.m. p.m. e.g. i.e. s.c.u.b.a. ph.d. r.v. a.k.a. a.",
    ),
    (
        "plan B. He went. plan B. Thesis plan B. the J. R. The",
        "plan b he went plan b. thesis plan b. the j. r the",
    ),
    (
        "no. 5 No. 5 no. x No.5 fig. 5a pp. 5 art. 5 ca. 1900 prop. x",
        "no. 5 no. 5 no x no. 5 fig. 5a pp. 5 art. 5 ca. 1900 prop x",
    ),
    (
        "Pa. x pa. x LA. la. Ill. ill. mfg. MFG. in. ft. lb. min. approx. Ave. Blvd. Sept.",
        "pa. x pa x la. la ill. ill mfg. mfg in ft. lb min approx ave. blvd. sept.",
    ),
    ("dogs., x t-shirt., 3rd., 5., can't., U.S., 1.5.,", "dogs. x t-shirt. 3rd. 5. ca n't u.s. 1.5"),
    (
        "1,000 3.5 .5 -5 +5 -5.5 1,000,000.50 5.5.5 1st 2nd 1990s 4x4 10-15 3-D 10:30 10:30am 1/2/2003 5:5:5",
        "1,000 3.5 .5 -5 +5 -5.5 1,000,000.50 5.5.5 1st 2nd 1990s 4x4 10-15 3-d 10:30 10:30 am 1/2/2003 5:5:5",
    ),
    (
        "1/2 1 1/2 3/4 1/2-inch 10 1/2 1-1/2 ½ 1½ 1\u20442",
        "1/2 1\u00a01/2 3/4 1/2-inch 10\u00a01/2 1-1/2 1/2 1 1/2 1\u20442",
    ),
    (
        "555-1212 (555) 555-1212 1-800-555-1212 555 555 1212",
        "555-1212 -lrb-555-rrb-\u00a0555-1212 1-800-555-1212 555\u00a0555\u00a01212",
    ),
    (
        "$5 $5.50 US$5 us$5 5% 50 % 5¢ £5 €5 ¥100 £500,000 #1 # 1 $$ A$5",
        "$ 5 $ 5.50 us$ 5 us $ 5 5 % 50 % 5 cents # 5 $ 5 ¥ 100 # 500,000 # 1 # 1 $ $ a$ 5",
    ),
    (
        "a/b and/or he/she s/he w/ w/o 24/7 / // a-b/c a/b/c/d \\ a\\b café/bar",
        "a/b and/or he/she s/he w / w/o 24/7 / / / a-b/c a/b/c / d \\ a \\ b café / bar",
    ),
    (
        "AT&T R&B Q&A at&t rock & roll M&M's &amp; Q&amp;A &lt; &quot; &apos; &nbsp; &#39; &hellip;",
        "at&t r&b q&a at & t rock & roll m&m 's & q&a < &#39; & hellip",
    ),
    (
        "foo@bar.com, mail a.b-c@d.co.uk. http://www.x.com/a?b=c#d www.google.com google.com. foo.jpg 5.jpg",
        "foo@bar.com, mail a.b-c@d.co.uk http://www.x.com/a?b=c#d www.google.com google.com foo.jpg 5.jpg",
    ),
    ("@user #tag #tag2 #1 a_b a_b_c __init__ ## @@", "@user #tag #tag 2 # 1 a_b a_b_c __ init __ ## @@"),
    (
        '(paren) [bracket] {brace} <angle> <b>bold</b> <br /> <a href="x"> a < b > c <3',
        "-lrb- paren -rrb- -lsb- bracket -rsb- -lcb- brace -rcb- <angle> <b> bold </b> <br\u00a0/> "
        '<a\u00a0href="x"> a < b > c < 3',
    ),
    (
        ":) :-) :( ;-) :D :P =) =D ^_^ >_< (-_-) xD :))",
        ":-rrb- :--rrb- :-lrb- ;--rrb- :d :p =-rrb- =d ^_^ >_< -lrb--_--rrb- xd :-rrb- -rrb-",
    ),
    (
        "a*b ** ~ ^ | + = a+b a=b C++ C# F# g++ ==== <<",
        "a * b ** ~ ^ | + = a + b a = b c++ c# f# g + + = = = = <<",
    ),
    (
        "U.S.-led non-U.S. a.m.-p.m. mr.-x 5.5-a 5,000-foot a-5.5 5.5-6.5 anti- pre- multi-colored -5-6 "
        "ruthless,man-eating ages..no-one",
        "u.s.-led non-u.s. a.m.-p.m. mr.-x 5.5-a 5,000-foot a-5 .5 5.5-6 .5 anti- pre multi-colored -5 -6 "
        "ruthless,man-eating ages..no-one",
    ),
    ("hi 😀 there 👩\u200d👩\u200d👧 ok ❤\ufe0f ★ ✓ → ©®™ °", "hi there ok ❤ ★ ✓ → © ® ™ °"),
    (
        "café naïve Zürich 北京 東京タワー Москва Ελλάδα עברית العربية हिन्दी ภาษาไทย 한국어 été5 北京's",
        "café naïve zürich 北京 東京タワー москва ελλάδα עברית العربية हिन्दी ภาษาไทย 한국어 été5 北京 's",
    ),
    (
        "x² m³ ﬁ ß Æ ñ co\u00adoperate soft\u2010hyphen it´s 10 000 double\u3000space zero\u200bwidth",
        "x ² m ³ ﬁ ß æ ñ cooperate soft\u2010hyphen it ´ s 10 000 double space zero width",
    ),
    ("é e", "é e"),
    ("“He said ‘hi’” she’s “‘x’” „low‟", "he said hi ''' she 's ``` x ''' „ low ‟"),
    ("’dog it’sa 's狗 mann't \\*", "'d og it 's a 's 狗 mann t \\*"),
    ("a\x01b \x7f c", "a b c"),
    (".", ""),
    ("...", ""),
    ("'", ""),
    ('"', ""),
    ("`", ""),
    ("?", ""),
    ("-", ""),
    ("", ""),
    ("   ", ""),
    ("tabs\there  double  space ", "tabs here double space"),
]


@pytest.mark.parametrize(("sentence", "expected"), CASES)
def test_prints_what_the_original_prints(sentence: str, expected: str) -> None:
    assert " ".join(ptb_tokenize(sentence)) == expected


def test_tokens_are_a_fixed_point_for_plain_sentences() -> None:
    tokens = ptb_tokenize("A man's dog can't catch the 2nd snow-covered ball.")
    assert tokens == ["a", "man", "'s", "dog", "ca", "n't", "catch", "the", "2nd", "snow-covered", "ball"]
    assert ptb_tokenize(" ".join(tokens)) == tokens


def test_long_and_odd_text_is_quick() -> None:
    for piece in ("a.", "a-", "a'", "1,", "<a ", "(", "a@", "www.", "\U0001f600", "é", "$", "_", "a/", "' "):
        ptb_tokenize(piece * 400)


@pytest.mark.data
def test_zero_differences_on_flickr8k() -> None:
    """All captions, read by the original itself."""
    path = Path(os.environ.get("RECUR_DATA", "")) / "flickr8k" / "annotations.jsonl"
    if "RECUR_DATA" not in os.environ or not path.is_file():
        pytest.skip("RECUR_DATA does not name a folder with flickr8k/annotations.jsonl")
    original = pytest.importorskip("pycocoevalcap.tokenizer.ptbtokenizer")
    if shutil.which("java") is None:
        pytest.skip("no Java to run the original")
    with path.open(encoding="utf-8") as lines:
        captions = [caption for line in lines for caption in json.loads(line)["captions"]]
    assert len(captions) > 30_000
    expected = original.PTBTokenizer().tokenize({n: [{"caption": text}] for n, text in enumerate(captions)})
    wrong = [text for n, text in enumerate(captions) if " ".join(ptb_tokenize(text)) != expected[n][0]]
    assert wrong == []
