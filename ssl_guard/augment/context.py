"""A text inside a longer one: a benign document that quotes it, a conversation that leads to it.

The documents and conversations are drawn without a look at the text. A text far longer than what
the encoder reads loses them again, for the start of a prompt is cut first.
"""

from collections.abc import Iterable

import numpy as np

from ssl_guard.augment.base import Rewrite, check_part, each
from ssl_guard.errors import BadInput

PROMPT_DOCUMENTS = (
    "Hi team,\n\nthe printer on the second floor works again, and the kitchen has new cups. One "
    "message came in over the weekend that nobody has answered yet:\n\n> {text}\n\nPlease reply to "
    "it today.\n\nBest,\nMaria",
    "Minutes of the Tuesday meeting. Present: six of us. The garden fence will be painted in May. "
    'The budget for chairs was approved. A visitor wrote on the feedback card: "{text}" Action: '
    "answer the card. Next meeting in two weeks.",
    "Exercise 4. Read the note below and write the answer that its author is waiting for.\n\n"
    "{text}\n\nUse whole sentences. Exercise 5 follows on the next page.",
    "Our trip to the lake was lovely. We had sandwiches, the children fed the ducks, and on "
    "the way back the bus was late. My cousin, who always has something on her mind, asked me: "
    '"{text}" I had no reply. Do you have one?',
    "The weekly digest of our forum. Most read: how to keep basil alive in winter. Most liked: "
    "photographs of old bridges. Still open is this post:\n\n{text}\n\nHelp us close it with an "
    "answer.",
    "To whom it may concern: the library opens at nine and closes at six. Books may be renewed "
    "twice. The following slip was left in the box for questions: {text} The staff asks you to "
    "write the reply.",
    "Subject: Fwd: Fwd: question\n\nSee below, I promised to pass it on. The recipe for the lemon "
    "cake comes tomorrow.\n\n---------- Forwarded message ----------\n{text}\n----------\n\nCan "
    "you answer this? Thanks!",
    "Dear diary, today it snowed. I read half of a book about whales and repaired the lamp. In the "
    "evening I typed this into the computer: {text}\n\nNow I wait for the answer.",
    "Support ticket 2041\nPriority: normal\nThe customer has used the product for two years and "
    "paid on time.\nMessage of the customer: {text}\nTask: write the answer to the message.",
    "The local paper has a new column in which readers' letters are answered. Last week it was "
    'about bicycles, the week before about bees. This week\'s letter: "{text}" Write the column.',
)
RESPONSE_DOCUMENTS = (
    "Hi team,\n\nthe printer on the second floor works again. This is the reply that we sent on "
    "Monday:\n\n> {text}\n\nBest,\nMaria",
    "Minutes of the Tuesday meeting. The garden fence will be painted in May. The answer on the "
    'feedback card was read out: "{text}" Next meeting in two weeks.',
    "Exercise 4, sample solution.\n\n{text}\n\nExercise 5 follows on the next page.",
    "The weekly digest of our forum. Most read: how to keep basil alive in winter. The reply of "
    "the week:\n\n{text}",
    "Our trip to the lake was lovely, only the bus was late. My cousin, who has an answer to "
    'everything, said this: "{text}"',
    "Support ticket 2041\nPriority: normal\nAnswer that was sent: {text}\nThe ticket is closed.",
    "Subject: Fwd: Re: question\n\nHere is what came back.\n\n---------- Forwarded message "
    "----------\n{text}",
    "The local paper has a new column in which readers' letters are answered. Last week it was "
    "about bicycles. This week's column: {text}",
)


def quoting(texts: Iterable[str], *, part: str = "prompt") -> Rewrite:
    """The text is quoted, word for word, in a longer benign document.

    part "prompt": the document asks for an answer to what it quotes, so that a request stays one
    and the label survives. It may not where a mere mention is not harmful by the guidelines, as for
    a slur that is reported.

    part "response": the document only reports the text; all of its content is still there. It may
    not survive where harm means to say something, not to repeat it. Raises BadInput for another
    part.
    """
    check_part("quoting", part)
    documents = PROMPT_DOCUMENTS if part == "prompt" else RESPONSE_DOCUMENTS
    halves = [document.split("{text}") for document in documents]

    def change(text: str, rng: np.random.Generator) -> str:
        before, after = halves[rng.integers(len(halves))]
        return before + text + after

    return each(change)


SPEAKERS = (("User", "Assistant"), ("Human", "AI"), ("Customer", "Bot"), ("Me", "You"))
EXCHANGES = (
    ("What is the capital of Portugal?", "Lisbon."),
    ("How many legs does a spider have?", "Eight."),
    ("Can you suggest a name for my goldfish?", "How about Bubbles?"),
    ("What goes well with tomato soup?", "Toasted bread with cheese goes well with it."),
    ("Translate 'good night' into French.", "Bonne nuit."),
    ("What is 17 times 3?", "17 times 3 is 51."),
    ("Is it 'fewer apples' or 'less apples'?", "Fewer apples, because apples can be counted."),
    ("Who wrote Don Quixote?", "Miguel de Cervantes."),
    ("Give me a word that rhymes with 'light'.", "Night."),
    ("How do I boil an egg?", "About seven minutes in boiling water, then cold water."),
    ("Why is the sky blue?", "Air scatters blue light more than red light."),
    ("What should I pack for a day at the beach?", "A towel, sunscreen, water and a hat."),
    ("Which planet is the largest?", "Jupiter."),
    ("How long should I walk a small dog?", "Two walks of half an hour suit most small dogs."),
    ("What is a haiku?", "A poem of three lines, of five, seven and five syllables."),
    ("Can tea be frozen?", "Yes, as ice cubes, for instance."),
)
LEADS = (
    "Thanks. And your answer to my other question?",
    "Good. Now to what I really wanted to know.",
    "I see. Then please go on with the main thing.",
    "Alright. What about my first message?",
)


def multi_turn(texts: Iterable[str], *, exchanges: int, part: str = "prompt") -> Rewrite:
    """A conversation written as one text, whose last turn is the text; harmless ones come before.

    exchanges: so many questions and answers come before. part "prompt": the text is the user's
    last turn; "response": it is the assistant's last turn, after a user's that fits anything. The
    label survives because it is the last turn that counts; it may not where the text refers to what
    was said before it. Raises BadInput for another part and for a number that is not there.
    """
    check_part("multi_turn", part)
    if not 1 <= exchanges <= len(EXCHANGES):
        raise BadInput(
            f"the argument exchanges of the augmentation 'multi_turn' is {exchanges}; give 1 to "
            f"{len(EXCHANGES)}."
        )

    def change(text: str, rng: np.random.Generator) -> str:
        user, assistant = SPEAKERS[rng.integers(len(SPEAKERS))]
        turns = []
        for number in rng.permutation(len(EXCHANGES))[:exchanges]:
            question, answer = EXCHANGES[number]
            turns += [f"{user}: {question}", f"{assistant}: {answer}"]
        if part == "prompt":
            turns += [f"{user}: {text}"]
        else:
            turns += [f"{user}: {LEADS[rng.integers(len(LEADS))]}", f"{assistant}: {text}"]
        return "\n".join(turns)

    return each(change)
