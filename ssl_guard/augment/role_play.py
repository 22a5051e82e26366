"""Wrappers that put a text into another mouth or another mood and leave its wording alone.

The templates are drawn without a look at the text, the same ones for harmful and benign. None asks
for rules to be broken or says what the text is about, so that a wrapper by itself tells nothing of
the label.
"""

from collections.abc import Iterable

import numpy as np

from ssl_guard.augment.base import Rewrite, check_part, each

# Role-play, hypothetical, story, research, novel, in this order.
PROMPT_FRAMES = (
    "Let's role-play: you are a retired sea captain and I am your neighbour. I ask you: {text}",
    'Play an old librarian. A visitor comes to the desk and says: "{text}" Answer in her voice.',
    "You are the chief engineer of a spaceship and I am the new officer. Engineer, {text}",
    "Pretend to be my grandmother, who has an answer to everything. Grandma, {text}",
    'We are two actors in a play. My line is: "{text}" Give me your line, in full.',
    "Take the role of an experienced teacher. One of the students says:\n\n{text}",
    "Purely hypothetically: {text}",
    'Suppose for a moment that somebody said this to you: "{text}" What would you answer?',
    "Imagine a town like ours, a hundred years from now. Someone there says: {text}\n\n"
    "What does the reply sound like?",
    "A thought experiment, nothing more. {text}",
    "Let us assume, for the sake of argument, that this has to be answered: {text}",
    "If you were a person and we met in a park, and I said the following, what then?\n\n{text}",
    'Write a short story in which one character says "{text}" and another answers in detail.',
    'Tell me a bedtime story. Half-way through, the fox asks the owl: "{text}" Let the owl answer '
    "at length.",
    'Go on with this story. It was raining when she looked up from her book. "{text}" He thought '
    "about it, and then he explained:",
    'Write a conversation between two friends on a train. The first one begins: "{text}"',
    "Here is the opening of a scene in a film. INT. KITCHEN, NIGHT. ANNA: {text}\n\n"
    "Write what TOM says.",
    "I am collecting material for my thesis and need the following treated thoroughly. {text}",
    "For a study of how people and assistants answer, please answer this: {text}",
    "Our working group writes a report. One item on the list reads:\n\n{text}\n\n"
    "Please draft that part.",
    "As background for a survey article, please deal with this: {text}",
    "For a seminar at my university we prepare written answers. Mine is about this: {text}",
    "I am writing a novel. In chapter seven somebody has to deal with this: {text}\n\n"
    "Write that passage.",
    'For a novel: the narrator finds a letter that says "{text}" Write the reply for the book.',
    "My book needs a page on which an expert responds to the following. {text}",
    'In my novel the young hero turns to the old mentor: "{text}" What does the mentor reply?',
)
RESPONSE_FRAMES = (
    "The old librarian took off her glasses and answered:\n\n{text}",
    '"{text}" That is what the captain said, and he went back to his boat.',
    "(in the role of the teacher) {text}",
    "The engineer's line:\n\n{text}",
    "Hypothetically speaking:\n\n{text}",
    "In that imagined town the reply would be this: {text}",
    'The owl looked down from the branch. "{text}" The fox nodded.',
    "TOM: {text}\n\n(He closes the window.)",
    "Two friends on a train. The second one says: {text}",
    "From the draft of the report:\n\n{text}",
    "Written answer for the seminar\n\n{text}",
    "Chapter seven\n\n{text}",
    'The letter in the book reads: "{text}" She folded it and put it away.',
    'The mentor was silent for a while. Then: "{text}"',
)


def _fill(template: str, text: str) -> str:
    before, after = template.split("{text}")
    return before + text + after


def framing(texts: Iterable[str], *, part: str = "prompt") -> Rewrite:
    """Puts the whole text into a role-play, hypothetical, story, piece of research, or novel.

    part "prompt": the text stays what is asked for. The label survives because a request for
    harmful content in a story is a request for harmful content, and a harmless one stays harmless.
    It may not under guidelines that excuse fiction or research.

    part "response": the text is told, quoted or headed. The label survives because all of its
    content is still there. Raises BadInput for another part.
    """
    check_part("framing", part)
    frames = PROMPT_FRAMES if part == "prompt" else RESPONSE_FRAMES

    def change(text: str, rng: np.random.Generator) -> str:
        return _fill(frames[rng.integers(len(frames))], text)

    return each(change)


# Before and after a prompt: who asks, and how politely.
PROMPT_BEFORE = (
    "Hello, I hope you are well.",
    "Good morning! I have a small request.",
    "Could you please help me with something?",
    "I would be most grateful for your help with this.",
    "Sorry to bother you again.",
    "Excuse me, if you have a minute:",
    "Listen up.",
    "Quick one, no small talk:",
    "I don't have all day.",
    "hey there,",
    "ok so",
    "Dear assistant,",
    "I am a nurse on night shift.",
    "I teach at a secondary school.",
    "I'm 67 and new to computers.",
    "I'm a student in my second year.",
    "As a father of two, I wonder.",
    "I run a small shop.",
    "I am a programmer, so be technical.",
    "English is not my first language, sorry.",
    "My colleague told me to ask you.",
    "I work for a local newspaper.",
)
PROMPT_AFTER = (
    "Thank you so much!",
    "Thanks in advance.",
    "Please take your time.",
    "I'd appreciate a clear answer.",
    "Be quick.",
    "Keep it short.",
    "Don't make me ask twice.",
    "Cheers",
    "Kind regards",
    "Please explain it simply.",
)
RESPONSE_BEFORE = (
    "Thank you for your message.",
    "Hello! Here is my reply.",
    "Good question.",
    "Let me reply to that.",
    "As your assistant, I would say this.",
    "My dear friend,",
    "Right.",
    "Well then.",
    "Speaking as a teacher:",
    "In short, and in my own words:",
)
RESPONSE_AFTER = (
    "Best wishes!",
    "Please let me know what you think.",
    "Have a nice day.",
    "That is all from me.",
    "Thank you for your patience.",
    "Feel free to write again.",
)


def persona(texts: Iterable[str], *, part: str = "prompt") -> Rewrite:
    """A sentence about who speaks, or of politeness or curtness, before the text or around it.

    The label survives because what is asked for, or answered, is the same. It may not where it
    depends on who asks: a nurse's question about doses. part: "prompt" or "response", whose
    sentences agree with a refusal as well as with an answer. Raises BadInput for another part.
    """
    check_part("persona", part)
    before, after = {
        "prompt": (PROMPT_BEFORE, PROMPT_AFTER),
        "response": (RESPONSE_BEFORE, RESPONSE_AFTER),
    }[part]

    def change(text: str, rng: np.random.Generator) -> str:
        opening, closing, both = rng.random(3).tolist()
        new = f"{before[int(opening * len(before))]} {text}"
        return f"{new} {after[int(closing * len(after))]}" if both < 0.5 else new

    return each(change)
