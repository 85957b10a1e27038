"""Tool calls: a weather tool and a calculator, in the many ways clients declare them, and answers after their results."""

import json

import knowledge as k


def dumps(value):
    return json.dumps(value, ensure_ascii=False)


def weather_tool(r):
    """Returns (tool, name of the place argument)."""
    # Rare names keep the model from guessing: only copying the name out of the schema is right every time.
    place = r.choice(["location", "location", "location", "city", "city", "city", "place", "town", "area", "destination"])
    about = {"type": "string"}
    if r.random() < 0.6:
        about["description"] = r.choice(["The city", "City name", "The city and state, e.g. San Francisco, CA", "Name of the city",
                                         "The location to get the weather for", f"The {place}", "City and country e.g. Bogotá, Colombia"])
    properties = {place: about}
    if r.random() < 0.25:
        properties["unit"] = {"type": "string", "enum": r.choice([["celsius", "fahrenheit"], ["c", "f"], ["metric", "imperial"]])}
    description = r.choice(["Get the weather", "Get the current weather", "Get current weather for a city", "Get the weather in a location",
                            "Get the current weather in a given location", "Get current temperature for a given location.",
                            "Returns the weather of a city", "Look up the weather", "Weather"])
    return declare(r, "get_weather", description, properties, [place]), place


def calculator_tool(r):
    about = {"type": "string"}
    if r.random() < 0.6:
        about["description"] = r.choice(["The expression", "The math expression to evaluate", "e.g. 2 + 2", "Arithmetic expression",
                                         "A mathematical expression such as 3 * 4", "The expression to compute"])
    description = r.choice(["Evaluate an expression", "Calculate a math expression", "Evaluate an arithmetic expression", "A calculator",
                            "Compute the value of an expression", "Calculator", "Does arithmetic"])
    return declare(r, "calculator", description, {"expression": about}, ["expression"])


def declare(r, name, description, properties, required):
    parameters = {"type": "object", "properties": properties}
    if r.random() < 0.85:
        parameters["required"] = required
    if r.random() < 0.2:
        parameters["additionalProperties"] = False
    function = {"name": name, "description": description, "parameters": parameters}
    if r.random() < 0.08:
        del function["description"]
    if r.random() < 0.15:
        function["strict"] = r.choice([True, False, None])
    if r.random() < 0.1:
        function = dict(sorted(function.items()))
    tool = {"type": "function", "function": function}
    return dict(sorted(tool.items())) if r.random() < 0.1 else tool


def unrelated_tool(r):
    name = r.choice(["send_email", "search", "get_time", "translate", "set_alarm", "play_music", r.word() + "_" + r.word()])
    return declare(r, name, r.choice(["Search the web", "Send a message", "Get the time", "Do something", "A helper"]),
                   {r.choice(["query", "text", "to", "zone", "value"]): {"type": "string"}}, [])


def call(name, arguments):
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


WEATHER = ["What is the weather in {}?", "What's the weather in {}?", "How is the weather in {}?", "Weather in {}?", "weather {}",
           "What is the weather like in {}?", "Tell me the weather in {}.", "Is it raining in {}?", "What's the weather like in {} today?",
           "What is the temperature in {}?", "How warm is it in {}?", "Get the weather for {}.", "What is the current weather in {}?",
           "Please look up the weather in {}.", "Use the tool to get the weather in {}.", "How's the weather in {} right now?"]


def weather_result(r, place, city):
    """A result as some weather service would give it, and how the model reports it."""
    degrees, sky = r.randint(-20, 40), r.choice(k.CONDITIONS)
    form = r.randrange(6)
    if form == 0:
        text = r.choice(["{d} degrees and {s}", "{s}, {d} degrees", "{s}", "{d}°C, {s}", "{d} C", "{d}°C and {s}", "It is {s}", "{s} and {d}°F"]).format(
            d=degrees, s=sky)
        return text, f"The weather in {city}: {text}."
    sky_key = r.choice(["condition", "conditions", "description", "weather", "sky", "summary", "forecast"])
    degrees_key = r.choice(["temperature", "temp", "temp_c", "degrees", "temperature_c", "temperature"])
    items = [(degrees_key, degrees), (sky_key, sky)]
    if r.random() < 0.5:
        items.insert(r.randrange(3), (place, city))
    if r.random() < 0.3:
        items.append(("unit", r.choice(["celsius", "C", "c"])))
    if r.random() < 0.5:
        items.sort(key=lambda item: item[0])
    text = dumps(dict(items)) if r.random() < 0.8 else json.dumps(dict(items), ensure_ascii=False, separators=(",", ":"))
    return text, f"The weather in {city}: {degrees} degrees, {sky}."


OPERATORS = {"+": ["+", "+", "plus"], "-": ["-", "-", "minus"], "*": ["*", "*", "times", "x", "multiplied by"],
             "/": ["/", "/", "divided by"]}


def weather(r, place, think):
    city = r.city()
    if r.random() < 0.15:
        other = r.city()
        cities = [city, other]
        ask = r.choice(["What is the weather in {} and in {}?", "What is the weather in {} and {}?", "Compare the weather in {} and {}.",
                        "Weather in {} and {}?"]).format(*cities)
    else:
        cities = [city]
        ask = r.choice(WEATHER).format(city)
    turns = [{"role": "user", "content": r.vary(ask, keep_case=True)},
             {"role": "assistant", "content": "", "tool_calls": [call("get_weather", {place: c}) for c in cities],
              "reasoning": f"I need the weather in {' and '.join(cities)}. I call get_weather."}]
    if r.random() < 0.2:
        return turns, True
    results = [weather_result(r, place, c) for c in cities]
    turns += [{"role": "tool", "content": text} for text, _ in results]
    turns.append({"role": "assistant", "content": " ".join(answer for _, answer in results), "reasoning": "The tool answered. I report it."})
    return turns, False


def calculate(r, think):
    top = r.choice([10, 100, 100, 1000, 10000])
    a, b, op = r.randrange(top), r.randrange(1, top), r.choice("+-**//")
    told = r.choice(OPERATORS[op])
    expression = f"{a} {op} {b}"
    ask = r.choice(["What is {}?", "{}", "Compute {}.", "Calculate {}", "How much is {}?", "What's {}?", "Use the calculator: {}",
                    "Use the calculator to compute {}.", "Please calculate {}."]).format(f"{a} {told} {b}" if r.random() < 0.8 or len(told) > 1 else f"{a}{told}{b}")
    turns = [{"role": "user", "content": r.vary(ask)},
             {"role": "assistant", "content": "", "tool_calls": [call("calculator", {"expression": expression})],
              "reasoning": f"I use the calculator for {expression}."}]
    if r.random() < 0.2:
        return turns, True
    value = {"+": a + b, "-": a - b, "*": a * b, "/": round(a / b, 2)}[op]
    text = r.choice([str(value), str(value), dumps({"result": value}), dumps({"value": value}), f"{expression} = {value}", dumps({"expression": expression, "result": value})])
    turns += [{"role": "tool", "content": text},
              {"role": "assistant", "content": f"{expression} = {value}", "reasoning": "The tool answered. I report it."}]
    return turns, False


def conversation(r, others, systems):
    """One conversation with tools; `others` are topics that need no tool."""
    which = r.choices(["weather", "calculator", "both"], [6, 2, 4])[0]
    tools, place = [], None
    if which != "calculator":
        tool, place = weather_tool(r)
        tools.append(tool)
    if which != "weather":
        tools.append(calculator_tool(r))
    if r.random() < 0.12:
        tools.append(unrelated_tool(r))
    r.shuffle(tools)
    turns = []
    # Short ones dominate: a later call can copy the argument's name from an earlier one, the first cannot.
    for _ in range(r.choices([1, 2, 3, 4, 5, 6], [10, 4, 2, 1, 1, 1])[0]):
        roll = r.random()
        ended = False
        if roll < 0.12:
            topic = r.choice(others if which == "weather" else others[1:])
            more = topic(r)
        elif which == "weather" or (which == "both" and roll < 0.6):
            more, ended = weather(r, place, False)
        elif roll < 0.97:
            more, ended = calculate(r, False)
        else:
            city = r.city()
            more = [{"role": "user", "content": r.choice(WEATHER).format(city)}, {"role": "assistant", "content": k.NO_WEATHER}]
            if which == "both":
                more, ended = weather(r, place, False)
        turns += more
        if ended:
            break
    talk = {"system": r.choice(systems) if r.random() < 0.2 else None, "tools": tools, "messages": turns}
    for message in turns[:-1]:
        message.pop("reasoning", None)
    if r.random() >= 0.15:
        turns[-1].pop("reasoning", None)
    return talk
