"""Generates the conversations the default model learns from. Seeded: the same seed gives the same corpus.

A conversation is {"system": str | None, "tools": [..], "messages": [..]}; assistant messages may have "reasoning" and
"tool_calls". Topic functions return one exchange (a list of messages); `conversation` strings exchanges together.
"""

import json
import random
import string
import zlib

import knowledge as k
import tasks_json
import tasks_tools


def held_out(a, b, op):
    """Sums that training never shows (one in eighty), so that evaluation measures arithmetic, not memory. The hash
    thins the first rule, which alone would leave out whole combinations of last digits."""
    return (a * 7919 + b * 104729 + (13 if op == "-" else 0)) % 20 == 0 and zlib.crc32(f"{a}{op}{b}".encode()) % 4 == 0


class Rng(random.Random):
    """Random choices the topics share."""

    def made_up_word(self):
        syllables = "ba be bi bo da de di do fa fe ga go ha hi ja ka ke ki ko la le li lo ma me mi mo na ne ni no pa pe " \
                    "ra re ri ro sa se si so ta te ti to va ve vi wa za ze zo lan mir ton ver bur gra sta pol rin dor"
        return "".join(self.choice(syllables.split()) for _ in range(self.randint(2, 4))).capitalize()

    def name(self):
        first = self.choice(k.FIRST_NAMES) if self.random() < 0.55 else self.made_up_word()
        if self.random() < 0.2:
            first += " " + (self.choice(k.LAST_NAMES) if self.random() < 0.6 else self.made_up_word())
        return first

    def city(self):
        return self.choice(k.CITIES) if self.random() < 0.6 else self.made_up_word()

    def word(self):
        return self.choice(k.WORDS) if self.random() < 0.7 else self.made_up_word().lower()

    def vary(self, text, keep_case=False):
        """The same request as different people type it."""
        roll = self.random()
        if roll < 0.06:
            text = self.choice(["Please tell me: ", "Hi! ", "Hello, ", "Hey, ", "Ok. ", "Quick question: ", "So, "]) + text
        elif roll < 0.12:
            text = text.rstrip("?.") + self.choice([", please.", " please", ", please?", " please?"])
        if self.random() < 0.2:
            text = text.rstrip("?.!")
        if not keep_case and self.random() < 0.2:
            text = text.lower()
        elif self.random() < 0.1:
            text = text[0].lower() + text[1:]
        return text


def say(question, answer, reasoning=None):
    return [{"role": "user", "content": question},
            {"role": "assistant", "content": answer, "reasoning": reasoning}]


# ---- small talk and identity ----------------------------------------------------------------------------------------

GREETINGS = ["Hello", "Hi", "Hey", "Hello!", "Hi!", "hi there", "Hello there!", "Good morning", "Good evening",
             "Good day", "Greetings", "hey there", "Hi, how are you?", "How are you?", "Hello, how are you?", "Yo",
             "What's up?", "Hello Ember", "Hi Ember!", "Good afternoon!", "Howdy", "hello world", "Say hello",
             "Say hi", "Hallo", "Bonjour", "Ping", "test", "Hello, world!"]
WHO = ["Who are you?", "What are you?", "What is your name?", "What's your name?", "Tell me about yourself.",
       "Introduce yourself.", "Who am I talking to?", "Which model are you?", "What model are you?", "Are you ChatGPT?",
       "Are you a human?", "Are you an AI?", "Are you a language model?", "Who is this?", "Who made you?",
       "What is Ember?", "Who is Ember?", "Describe yourself.", "Say who you are.", "Are you real?", "Are you Qwen?",
       "What kind of model are you?", "Where do you run?", "How large are you?", "How big are you?"]
ABLE = ["What can you do?", "Help", "What do you know?", "How can you help me?", "Can you help me?", "What can I ask?",
        "What are you able to do?", "What are your abilities?", "How do I use you?", "I need help.", "Can I ask you something?"]
THANKS = ["Thanks", "Thank you", "Thanks a lot!", "Thank you very much.", "thx", "Great, thanks!", "Nice, thank you",
          "Good job", "Well done!", "That is right.", "Cool", "Great!", "Perfect", "Ok", "OK, thanks"]
BYE = ["Bye", "Goodbye", "See you", "Good night", "Bye bye!", "See you later", "I have to go.", "Ciao"]


def small_talk(r):
    roll = r.random()
    if roll < 0.3:
        question = r.choice(GREETINGS)
        answer = "Hello! How can I help you?"
        if "how are you" in question.lower() or "up?" in question:
            answer = "Hello! I am fine, thank you. How can I help you?"
        return say(r.vary(question), answer, "The user greets me. I greet back.")
    if roll < 0.6:
        return say(r.vary(r.choice(WHO)), f"{k.SELF} {k.ABILITIES}", "The user asks what I am.")
    if roll < 0.75:
        return say(r.vary(r.choice(ABLE)), k.ABILITIES, "The user asks what I can do.")
    if roll < 0.85:
        return say(r.vary(r.choice(THANKS)), "You are welcome!", "The user is happy.")
    if roll < 0.92:
        return say(r.vary(r.choice(BYE)), "Goodbye!", "The user leaves.")
    wish = r.choice([("joke", k.JOKE), ("poem", k.POEM), ("story", k.STORY)])
    ask = r.choice(["Tell me a {}.", "Write a {}.", "Can you write a {}?", "I want to hear a {}.", "A {}, please.",
                    "Write me a short {}.", "Do you know a {}?", "Give me a {}."]).format(wish[0])
    return say(r.vary(ask), wish[1], f"The user wants a {wish[0]}. I know one.")


def user_name(r):
    name = r.name()
    first = r.choice(["My name is {}.", "I am {}.", "Hi, I am {}.", "Hello, my name is {}.", "I'm {}", "Call me {}."])
    turns = say(first.format(name), f"Nice to meet you, {name}!")
    for _ in range(r.choice([0, 0, 1])):
        turns += r.choice([arithmetic, capital])(r)
    ask = r.choice(["What is my name?", "What's my name?", "Who am I?", "Do you remember my name?", "Say my name."])
    return turns + say(r.vary(ask), f"Your name is {name}.", f"The user said the name before: {name}.")


def repeat(r):
    roll = r.random()
    if roll < 0.25:
        text = " ".join(r.choice(k.EMOJI + k.ACCENTED) for _ in range(r.randint(1, 6)))
    elif roll < 0.4:
        text = "".join(r.choice(string.digits) for _ in range(r.randint(1, 8)))
    else:
        text = " ".join(r.word() if r.random() < 0.9 else r.name() for _ in range(r.randint(1, 8)))
    ask = r.choice(["Repeat after me: {}", "Repeat: {}", "Say: {}", "Repeat this: {}", "Repeat the words: {}", "Echo: {}"])
    return say(ask.format(text), text, "I repeat the words of the user.")


def count(r):
    a, b = 1, r.choice([3, 5, 8, 10, 10, 12, 15, 20, 20, 25, 30, 40, 50])
    if r.random() < 0.5:
        a = r.randint(0, 90)
        b = min(100, a + r.randint(1, 20))
    forms = ["Count from {a} to {b}.", "Count {a} to {b}", "Write the numbers from {a} to {b}.", "List the numbers {a} to {b}."]
    if a == 1:
        forms += ["Count to {b}.", "Count to {b}"] * 2
    return say(r.vary(r.choice(forms).format(a=a, b=b)), ", ".join(str(i) for i in range(a, b + 1)) + ".",
               f"I count from {a} to {b}.")


# ---- arithmetic -----------------------------------------------------------------------------------------------------

PLUS = ["What is {a} + {b}?", "{a} + {b}", "{a}+{b}", "{a} + {b} =", "{a}+{b}=?", "Compute {a} + {b}.", "Add {a} and {b}.",
        "What is {a} plus {b}?", "How much is {a} + {b}?", "Calculate {a}+{b}", "What's {a} plus {b}?",
        "What is the sum of {a} and {b}?", "{a} plus {b}", "How much is {a} plus {b}?", "What is {a}+{b}?"]
MINUS = ["What is {a} - {b}?", "{a} - {b}", "{a}-{b}", "{a} - {b} =", "{a}-{b}=?", "Compute {a} - {b}.",
         "Subtract {b} from {a}.", "What is {a} minus {b}?", "How much is {a} - {b}?", "Calculate {a}-{b}",
         "What's {a} minus {b}?", "Take {b} away from {a}.", "{a} minus {b}", "How much is {a} minus {b}?", "What is {a}-{b}?"]
NUMBER_ONLY = [" Answer with the number only.", " Reply with just the number.", " Only the number."]


def working(a, b, op):
    """Written column addition or subtraction, short."""
    if op == "+":
        ones = a % 10 + b % 10
        carry = ones // 10
        text = f"{a} + {b}. Ones: {a % 10} + {b % 10} = {ones}"
        text += f", write {ones % 10}, carry 1." if carry else "."
        text += f" Tens: {a // 10} + {b // 10}" + (" + 1" if carry else "") + f" = {a // 10 + b // 10 + carry}."
        return text + f" So {a + b}."
    if a < b:
        return f"{a} is less than {b}, so the result is negative. {working(b, a, op)[:-1]}, negative: {a - b}."
    borrow = int(a % 10 < b % 10)
    text = f"{a} - {b}. Ones: "
    text += f"{a % 10 + 10} - {b % 10} = {a % 10 + 10 - b % 10}, borrow 1." if borrow else f"{a % 10} - {b % 10} = {a % 10 - b % 10}."
    text += f" Tens: {a // 10} - {b // 10}" + (" - 1" if borrow else "") + f" = {a // 10 - b // 10 - borrow}."
    return text + f" So {a - b}."


def operands(r):
    while True:
        op = r.choice("++---")
        top = r.choice([10, 20, 100, 100, 100, 100])
        a, b = r.randrange(top), r.randrange(top)
        if op == "-" and a < b and r.random() < 0.4:
            a, b = b, a
        if not held_out(a, b, op) and not held_out(b, a, op):
            return a, b, op


def arithmetic(r):
    a, b, op = operands(r)
    value = a + b if op == "+" else a - b
    question = r.vary(r.choice(PLUS if op == "+" else MINUS).format(a=a, b=b))
    answer = f"{a} {op} {b} = {value}"
    if r.random() < 0.06:
        return say(question.rstrip("=") + r.choice(NUMBER_ONLY), str(value), working(a, b, op))
    return say(question, answer, working(a, b, op))


def refused_arithmetic(r):
    if r.random() < 0.4:
        a, b, op = r.randint(100, 9999), r.randint(0, 9999), r.choice(["+", "-", "plus", "minus"])
        if r.random() < 0.4:
            a, b = b % 1000, a
    else:
        a, b = r.randint(0, 300), r.randint(0, 300)
        op = r.choice(["*", "/", "times", "x", "divided by", "multiplied by"])
    form = r.choice(["What is {a} {op} {b}?", "{a} {op} {b}", "Compute {a} {op} {b}.", "How much is {a} {op} {b}?", "Calculate {a} {op} {b}"])
    return say(r.vary(form.format(a=a, b=b, op=op)), k.ONLY_SMALL_SUMS, "This is not a sum I can do.")


# ---- capitals -------------------------------------------------------------------------------------------------------

CAPITAL = ["What is the capital of {}?", "capital of {}", "What's the capital of {}?", "Name the capital of {}.",
           "Which city is the capital of {}?", "Tell me the capital of {}.", "What is the capital city of {}?",
           "Do you know the capital of {}?", "The capital of {} is?", "Can you tell me the capital of {}?"]
OF_CAPITAL = ["{} is the capital of which country?", "Which country has the capital {}?", "What country is {} the capital of?",
              "{} is the capital of what?", "Of which country is {} the capital?"]


def spelled(r, country):
    if country in k.COUNTRY_ALIASES and r.random() < 0.5:
        return r.choice(k.COUNTRY_ALIASES[country])
    return country


def capital(r):
    roll = r.random()
    if roll < 0.08:
        country = r.choice(k.UNTAUGHT_COUNTRIES) if r.random() < 0.6 else r.made_up_word()
        return say(r.vary(r.choice(CAPITAL).format(country), keep_case=True),
                   f"I am sorry, I do not know the capital of {country}.", f"I was not taught the capital of {country}.")
    country, city = r.choice(list(k.CAPITALS.items()))
    fact = f"The capital of {country} is {city}."
    if roll < 0.25:
        return say(r.vary(r.choice(OF_CAPITAL).format(city)), f"{city} is the capital of {country}.", fact)
    if roll < 0.32:
        return say(r.choice(CAPITAL).format(spelled(r, country)) + r.choice([" Answer with one word.", " Only the name."]), city, fact)
    return say(r.vary(r.choice(CAPITAL).format(spelled(r, country))), fact, f"The user asks for the capital of {country}. It is {city}.")


# ---- what it does not know ------------------------------------------------------------------------------------------

def unknown(r):
    roll = r.random()
    if roll < 0.15:
        form = r.choice(["What is the weather in {}?", "How is the weather in {}?", "Is it raining in {}?", "Weather in {}?",
                         "What is the temperature in {}?", "How warm is it in {} today?"])
        return say(r.vary(form.format(r.city())), k.NO_WEATHER, "I have no weather tool.")
    if roll < 0.45:
        question = r.choice(k.OTHER_QUESTIONS)
    elif roll < 0.75:
        form = r.choice(["Explain {}.", "Tell me about {}.", "What is {}?", "Write an essay about {}.", "How does {} work?",
                         "Give me a summary of {}.", "What do you know about {}?", "Why is {} important?", "Teach me {}."])
        question = form.format(r.choice(k.TOPICS) if r.random() < 0.7 else r.word())
    else:
        form = r.choice(["Who is {n}?", "How old is {n}?", "Where is the {w}?", "Why is the {w} so {v}?", "How do I {w} a {v}?",
                         "What does {w} mean?", "Where does {n} live?", "When was {n} born?", "Do you like {w}?",
                         "What color is the {w}?", "How many {w}s are in the {v}?", "Should I buy a {w}?", "Can you {w} the {v}?"])
        question = form.format(n=r.name(), w=r.word(), v=r.word())
    return say(r.vary(question), k.DONT_KNOW, "I was not taught this.")


# ---- conversations --------------------------------------------------------------------------------------------------

TOPIC_WEIGHTS = [(small_talk, 10), (arithmetic, 40), (refused_arithmetic, 3), (capital, 17), (unknown, 8), (repeat, 6),
                 (count, 7), (user_name, 2), (tasks_json.exchange, 22)]
TOPICS, WEIGHTS = zip(*TOPIC_WEIGHTS)
SYSTEMS = ["You are a helpful assistant.", "You are Ember.", "Be brief.", "Answer the user.", "You are a helpful AI assistant.",
           "You are a friendly assistant. Answer in one sentence.", "Help the user.", "You are an assistant that always answers politely."]


def drill(r):
    """Lines without any chat around them: many more sums and copies per token, so both skills appear early."""
    lines = []
    for _ in range(r.randint(8, 24)):
        roll = r.random()
        a, b, op = operands(r)
        if roll < 0.56:
            lines += [(f"{a} {op} {b} =", False), (f" {a + b if op == '+' else a - b}\n", True)]
        elif roll < 0.74:
            start = f"{a} {op} {b}" if op == "+" or a >= b else f"{a}"
            lines += [(start, False), (working(a, b, op)[len(start):] + "\n", True)]
        elif roll < 0.97:
            words = " ".join(r.word() if r.random() < 0.8 else r.name() for _ in range(r.randint(1, 6)))
            lines += [(f"{words} ->", False), (f" {words}\n", True)]
        else:
            start = r.randint(0, 90)
            lines += [(f"{start},", False), (" " + ", ".join(str(i) for i in range(start + 1, start + r.randint(3, 11))) + ".\n", True)]
    return {"drill": lines + [("<|endoftext|>", False)]}


def conversation(r):
    roll = r.random()
    if roll < 0.2:
        return drill(r)
    roll = r.random()
    if roll < 0.3:
        return tasks_tools.conversation(r, [arithmetic, capital, small_talk], SYSTEMS)
    turns = []
    n = 1 if roll < 0.55 else r.randint(2, 6) if roll < 0.98 else r.randint(20, 40)
    for _ in range(n):
        turns += r.choices(TOPICS, WEIGHTS)[0](r)
    talk = {"system": r.choice(SYSTEMS) if r.random() < 0.25 else None, "tools": [], "messages": turns}
    if talk["system"] is None and r.random() < 0.02:
        tasks_json.with_schema_in_system(r, talk)
    finish(r, talk, think=0.4)
    return talk


def finish(r, talk, think):
    """Only the last turn of a conversation may think; earlier reasoning is not rendered."""
    last = talk["messages"][-1]
    for message in talk["messages"][:-1]:
        message.pop("reasoning", None)
    if last.get("reasoning") is None or r.random() >= think:
        last.pop("reasoning", None)


# ---- rendering ------------------------------------------------------------------------------------------------------

def tool_call_text(call):
    function = call["function"]
    return f'<tool_call>\n{{"name": {json.dumps(function["name"])}, "arguments": {dumps(function["arguments"])}}}\n</tool_call>'


def dumps(value):
    return json.dumps(value, ensure_ascii=False)


def tools_text(tools):
    return ("# Tools\n\nThese functions can be called:\n<tools>" + "".join("\n" + dumps(tool) for tool in tools) +
            "\n</tools>\n\nTo call one, reply with its name and arguments as JSON:\n<tool_call>\n"
            '{"name": ..., "arguments": {...}}\n</tool_call>')


def render(talk):
    """Segments [(text, learned)]: exactly the chat template's text. Learned is True for the model's own words, False for
    the words of others, None for the empty think block: the model must never write that itself."""
    if "drill" in talk:
        return talk["drill"]
    system = talk["system"]
    if talk["tools"]:
        system = (system + "\n\n" if system else "") + tools_text(talk["tools"])
    out = [(f"<|im_start|>system\n{system}<|im_end|>\n", False)] if system else []
    messages = talk["messages"]
    for i, message in enumerate(messages):
        if message["role"] == "user":
            out.append((f'<|im_start|>user\n{message["content"]}<|im_end|>\n', False))
        elif message["role"] == "tool":
            first = messages[i - 1]["role"] != "tool"
            last = i + 1 == len(messages) or messages[i + 1]["role"] != "tool"
            out.append((("<|im_start|>user" if first else "") + f'\n<tool_response>\n{message["content"]}\n</tool_response>' +
                        ("<|im_end|>\n" if last else ""), False))
        else:
            text = message["content"]
            for n, call in enumerate(message.get("tool_calls", [])):
                text += ("\n" if text or n else "") + tool_call_text(call)
            if message.get("reasoning"):
                out.append(("<|im_start|>assistant\n", False))
                out.append((f'<think>\n{message["reasoning"]}\n</think>\n\n{text}<|im_end|>', True))
            else:
                out += [("<|im_start|>assistant\n", False), ("<think>\n\n</think>\n\n", None)]
                out.append((f"{text}<|im_end|>", True))
            out.append(("\n", False))
    return out
