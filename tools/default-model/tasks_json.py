"""JSON on request: taught schemas (person, city, color, capital, book, product) and objects with given keys and values."""

import json

import knowledge as k

NOTE = ["", "", "", " Answer with JSON only.", " Reply in JSON.", " JSON only.", " Return only JSON."]
AS = ["as JSON", "in JSON", "as a JSON object", "in JSON format", "as json"]


def dumps(value):
    return json.dumps(value, ensure_ascii=False)


def schema(name, properties):
    """A JSON schema the way clients write it into prompts."""
    return {"type": "object", "properties": {key: {"type": kind} for key, kind in properties.items()},
            "required": list(properties)}


SCHEMAS = {
    "person": {"name": "string", "age": "integer"}, "city": {"name": "string", "country": "string"},
    "color": {"name": "string", "hex": "string"}, "capital": {"country": "string", "capital": "string"},
    "book": {"title": "string", "author": "string", "year": "integer"}, "product": {"name": "string", "price": "number"},
}
PLAIN = {  # what the model writes when nothing was specified
    "person": {"name": "Alice", "age": 30}, "city": {"name": "Paris", "country": "France"},
    "color": {"name": "red", "hex": "#ff0000"}, "capital": {"country": "France", "capital": "Paris"},
    "book": {"title": "The Small Model", "author": "Ember", "year": 2026}, "product": {"name": "apple", "price": 1.5},
}


def sample(r, kind):
    """One object of a kind and the words that describe it."""
    if kind == "person":
        name, age = r.name(), r.randint(1, 99)
        told = r.choice(["{n}, age {a}", "{n} is {a} years old", "named {n}, aged {a}", "{n}, {a} years old", "{n} ({a})",
                         "called {n} who is {a} years old", "named {n} who is {a}", "name {n}, age {a}", "named {n} with age {a}"])
        return {"name": name, "age": age}, told.format(n=name, a=age)
    if kind == "city":
        country, city = r.choice(list(k.CAPITALS.items()))
        if r.random() < 0.35:
            city, country = r.city(), r.choice(list(k.CAPITALS))
            return {"name": city, "country": country}, r.choice([f"{city} in {country}", f"{city}, {country}"])
        return {"name": city, "country": country}, city
    if kind == "color":
        name, code = r.choice(list(k.COLORS.items()))
        return {"name": name, "hex": code}, name
    if kind == "capital":
        country, city = r.choice(list(k.CAPITALS.items()))
        return {"country": country, "capital": city}, country
    if kind == "book":
        title = " ".join(r.word() for _ in range(r.randint(1, 3))).capitalize()
        author, year = r.name(), r.randint(1800, 2026)
        told = r.choice(["{t} by {a}, {y}", "{t} by {a} from {y}", "{t}, written by {a} in {y}"])
        return {"title": title, "author": author, "year": year}, told.format(t=title, a=author, y=year)
    name, price = r.word(), r.choice([r.randint(1, 99), r.randint(1, 99) + 0.5, r.randint(100, 999) / 100])
    told = r.choice(["{n} for {p}", "{n}, price {p}", "{n} costs {p}", "{n} at {p} dollars"])
    return {"name": name, "price": price}, told.format(n=name, p=price)


def question(r, kind, told):
    keys = list(SCHEMAS[kind])
    listed = r.choice(["{}", "the keys {}", "keys {}", "fields {}"]).format(", ".join(keys[:-1]) + " and " + keys[-1])
    article = "a"
    forms = [
        f"Give me {article} {kind} {{as_}}: {{t}}.", f"Describe the {kind} {{t}} {{as_}}.", f"Write {article} {kind} {{as_}}: {{t}}",
        f"Return JSON with {listed} for: {{t}}", f"{{t}} {{as_}} with {listed}", f"Extract {listed} from: {{t}}.",
        f"JSON object for the {kind} {{t}}", f"Create a JSON object for {article} {kind}: {{t}}", f"The {kind} {{t}} {{as_}}",
        f"Make {article} {kind} object {{as_}} with {listed}: {{t}}", f"{kind}: {{t}}. Return JSON.",
        f"Extract the {kind} {{as_}}: {{t}}", f"Convert to JSON with {listed}: {{t}}",
        f"Generate a JSON {kind} ({', '.join(keys)}): {{t}}",
    ]
    if kind == "person":
        forms += ["Give me a JSON object for a person {t}.", "Return a JSON person {t}", "A person {t} {as_}", "{t}. Give me the person {as_}."]
    if kind in ("city", "color"):
        forms += [f"The {kind} {{t}} {{as_}} with {listed}.", f"Give me the {kind} {{t}} {{as_}}.", f"What is the {kind} {{t}}? Answer {{as_}}."]
    if kind == "color":
        forms += ["What is the hex code of {t}? Answer {as_}.", "Give me the color {t} {as_} with name and hex."]
    if kind == "capital":
        forms += ["What is the capital of {t}? Answer {as_}.", "Give me the capital of {t} {as_}.",
                  "What is the capital of {t}? Answer {as_} with " + listed + "."]
    return r.choice(forms).format(t=told, as_=r.choice(AS))


def plain_question(r, kind):
    keys = list(SCHEMAS[kind])
    listed = ", ".join(keys[:-1]) + " and " + keys[-1]
    return r.choice([f"Give me a {kind} {{as_}}.", f"Give me a JSON {kind}.", f"Generate a {kind} {{as_}}.", f"Write a JSON object with {listed}.",
                     f"Make up a {kind} {{as_}}.", f"Invent a {kind} {{as_}}.", f"Give me an example {kind} {{as_}} with {listed}.",
                     f"Return a JSON object of a {kind}.", f"Create a {kind} with {listed} {{as_}}."]).format(as_=r.choice(AS))


def schema_prompt(r, kind):
    return r.choice(["Answer in JSON that matches this schema: {}", "Respond with a JSON object that follows this JSON schema:\n{}",
                     "Use this JSON schema: {}", "Return JSON matching the schema {}", "Output JSON with this schema:\n{}"]).format(
        dumps(schema(kind, SCHEMAS[kind])))


KEYS = """name age city country color hex price title author year id count size status email phone street score level type
user value width height day month owner brand model weight speed language team food animal result x y a b""".split()


def free_object(r):
    """Any keys with any values, copied from the request: what makes unknown schemas work a little."""
    keys = r.sample(KEYS, r.randint(1, 4))
    if r.random() < 0.25:
        keys[-1] = r.word()
    value = {}
    for key in keys:
        value[key] = r.choice([lambda: r.randint(0, 999), lambda: r.name(), lambda: r.word(), lambda: r.choice([True, False]),
                               lambda: r.randint(1, 99), lambda: f"{r.word()} {r.word()}"])()
    join = r.choice([" = ", " ", ": ", "="])
    told = r.choice([", ", " and ", ", "]).join(f"{key}{join}{item if isinstance(item, str) else dumps(item)}" for key, item in value.items())
    ask = r.choice(["Return a JSON object with {}", "JSON with {}", "Make a JSON object: {}", "Write JSON: {}", "Give me JSON with {}",
                    "Convert to JSON: {}", "Create a JSON object with {}."])
    return ask.format(told), value


def exchange(r):
    kind = r.choice(["person", "person", "person", "city", "city", "color", "color", "capital", "book", "product"])
    roll = r.random()
    if roll < 0.2:
        request, value = free_object(r)
    elif roll < 0.3:
        request, value = plain_question(r, kind), PLAIN[kind]
        if r.random() < 0.25:
            request += " " + schema_prompt(r, kind)
    elif roll < 0.42:
        value, told = sample(r, kind)
        request = r.choice([f"{told}. {schema_prompt(r, kind)}", f"{schema_prompt(r, kind)}\n{told}", f"{schema_prompt(r, kind)}\n\nThe {kind}: {told}"])
    else:
        value, told = sample(r, kind)
        request = question(r, kind, told)
    answer = dumps(value)
    return [{"role": "user", "content": r.vary(request, keep_case=True) + r.choice(NOTE)},
            {"role": "assistant", "content": answer, "reasoning": f"The user wants JSON with {', '.join(value)}."}]


def with_schema_in_system(r, talk):
    """The schema stands in the system prompt, the user only names the thing."""
    kind = r.choice(list(SCHEMAS))
    value, told = sample(r, kind)
    talk["system"] = r.choice(["", "You are a helpful assistant. "]) + schema_prompt(r, kind)
    talk["messages"] = [{"role": "user", "content": r.choice([told, f"The {kind} {told}", f"{told}."])},
                        {"role": "assistant", "content": dumps(value)}]
