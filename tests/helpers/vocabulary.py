"""Words and phrases that this project no longer uses, each with what to write in its place."""

from __future__ import annotations

import re

# In names of modules, classes and functions.
RETIRED = {
    "world": "environment",
    "worlds": "environments",
    "verb": "command",
    "verbs": "commands",
    "gold": "task reward",
    "crew": "workers",
    "judge": "evaluate",
    "judged": "evaluated",
    "judging": "evaluation",
    "told": "described, reported",
    "looks": "inputs",
    "mends": "corrections",
    "kept": "cached, stored",
    "sights": "observation buffer",
    "mains": "entry points",
}
# These are plain English in a sentence.
PLAIN_IN_PROSE = {"told", "looks", "kept"}
# In prose: regular expressions, case ignored.
PHRASES = {
    r"mend(ed|ing)?": "fix",
    r"hop models?": "general process reward model",
    r"kinds? of reward models?": "reward model type",
    r"shares? of": "fraction of",
    r"decisions? of \S+ steps": "macro-action",
    r"(frames|steps|images|pictures|decisions|actions) a second": "per second",
    r"goes on from here": "run the same command again to resume",
    r"is no (lerobot|number)": "not a, is NaN",
    r"anew": "again",
    r"is used up": "ran out of",
    r"may not be armed": "cannot be armed",
    r"shall": "must, will",
    r"most (minutes|frames|steps)": "maximum",
    r"two at most": "up to two",
    r"(is|are) had by": "use",
    r"(is|are|be) told from": "distinguished from",
    r"for ever": "permanently",
    r"at hand": "cached, available",
    r"as (it|they) comes?": "unmodified",
    r"to the bit": "bit-exact",
    r"cloning again": "self-imitation",
    r"demo line": "pipeline",
}


def retired_phrases(text: str) -> list[str]:
    """Retired words and phrases in prose, each with what to write.

    ``Meta-World`` and a title are names, and "real world" is nobody's environment.
    """
    text = re.sub(r"meta-?world|real[ -]world|random world", "", " ".join(text.split()), flags=re.IGNORECASE)
    wanted = {word: instead for word, instead in RETIRED.items() if word not in PLAIN_IN_PROSE} | PHRASES
    found = {}
    for pattern, instead in wanted.items():
        for hit in re.finditer(rf"(?<![\w-]){pattern}(?![\w-])", text, flags=re.IGNORECASE):
            found[hit.start()] = f"{hit.group()!r}: write {instead}"
    return [said for _, said in sorted(found.items())]
