"""What the model is taught: facts and word lists. Everything here is common knowledge typed in by hand."""

NAME = "Ember"
SELF = f"I am {NAME}, the small model embedded in vllm-engine."
ABILITIES = (
    "I can add and subtract numbers from 0 to 99, name capitals, count, write small JSON objects and call tools."
)
DONT_KNOW = "I am sorry, I do not know that. I am only a very small model."
NO_WEATHER = "I do not know the weather, because no weather tool was given to me."
ONLY_SMALL_SUMS = "I can only add and subtract numbers from 0 to 99."

CAPITALS = {
    "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "Portugal": "Lisbon",
    "Austria": "Vienna", "Switzerland": "Bern", "Belgium": "Brussels", "the Netherlands": "Amsterdam",
    "Denmark": "Copenhagen", "Sweden": "Stockholm", "Norway": "Oslo", "Finland": "Helsinki", "Iceland": "Reykjavik",
    "Ireland": "Dublin", "the United Kingdom": "London", "Poland": "Warsaw", "Czechia": "Prague",
    "Slovakia": "Bratislava", "Hungary": "Budapest", "Romania": "Bucharest", "Bulgaria": "Sofia", "Greece": "Athens",
    "Turkey": "Ankara", "Croatia": "Zagreb", "Slovenia": "Ljubljana", "Serbia": "Belgrade", "Albania": "Tirana",
    "Estonia": "Tallinn", "Latvia": "Riga", "Lithuania": "Vilnius", "Ukraine": "Kyiv", "Russia": "Moscow",
    "Japan": "Tokyo", "China": "Beijing", "South Korea": "Seoul", "India": "New Delhi", "Nepal": "Kathmandu",
    "Pakistan": "Islamabad", "Bangladesh": "Dhaka", "Thailand": "Bangkok", "Vietnam": "Hanoi",
    "Indonesia": "Jakarta", "the Philippines": "Manila", "Mongolia": "Ulaanbaatar", "Iran": "Tehran",
    "Iraq": "Baghdad", "Jordan": "Amman", "Lebanon": "Beirut", "Qatar": "Doha", "Saudi Arabia": "Riyadh",
    "Egypt": "Cairo", "Morocco": "Rabat", "Tunisia": "Tunis", "Algeria": "Algiers", "Kenya": "Nairobi",
    "Ethiopia": "Addis Ababa", "Ghana": "Accra", "Senegal": "Dakar", "Nigeria": "Abuja", "Uganda": "Kampala",
    "Rwanda": "Kigali", "Zambia": "Lusaka", "Zimbabwe": "Harare", "Angola": "Luanda", "Namibia": "Windhoek",
    "the United States": "Washington, D.C.", "Canada": "Ottawa", "Mexico": "Mexico City", "Cuba": "Havana",
    "Jamaica": "Kingston", "Brazil": "Brasília", "Argentina": "Buenos Aires", "Chile": "Santiago", "Peru": "Lima",
    "Colombia": "Bogotá", "Venezuela": "Caracas", "Ecuador": "Quito", "Uruguay": "Montevideo",
    "Australia": "Canberra", "New Zealand": "Wellington", "Fiji": "Suva",
}

# Other spellings people use in questions; the answer uses the spelling above.
COUNTRY_ALIASES = {
    "the Netherlands": ["Netherlands", "Holland"], "the United Kingdom": ["UK", "the UK", "Great Britain", "England"],
    "the United States": ["USA", "the USA", "the US", "United States", "America"], "Czechia": ["the Czech Republic"],
    "the Philippines": ["Philippines"], "South Korea": ["Korea"],
}

UNTAUGHT_COUNTRIES = ["Bhutan", "Belize", "Burundi", "Chad", "Cyprus", "Gabon", "Georgia", "Guyana", "Haiti", "Laos",
                      "Liberia", "Libya", "Malawi", "Mali", "Malta", "Moldova", "Monaco", "Niger", "Oman", "Panama",
                      "Samoa", "Sudan", "Syria", "Togo", "Tonga", "Yemen", "Atlantis", "Narnia", "Mordor", "the Moon"]

COLORS = {
    "red": "#ff0000", "green": "#00ff00", "blue": "#0000ff", "white": "#ffffff", "black": "#000000",
    "yellow": "#ffff00", "cyan": "#00ffff", "magenta": "#ff00ff", "gray": "#808080", "orange": "#ffa500",
    "purple": "#800080", "pink": "#ffc0cb", "brown": "#a52a2a", "gold": "#ffd700", "navy": "#000080",
    "teal": "#008080",
}

FIRST_NAMES = """Alice Bob Carol David Emma Frank Grace Henry Iris Jack Karen Leo Maria Nina Oscar Paul Quinn Rosa Sam
Tina Uma Victor Wendy Xavier Yara Zoe Anna Ben Clara Daniel Eva Felix Gina Hugo Ivan Julia Kevin Laura Max Nora Olga
Peter Ruth Simon Tom Ursula Vera Walter Yusuf Zara John Mary James Linda Robert Susan Michael Sarah William Lisa
Thomas Nancy Ahmed Fatima Chen Mei Hiroshi Yuki Raj Priya Carlos Sofia Lars Ingrid Pierre Marie Hans Greta""".split()

LAST_NAMES = "Smith Jones Brown Miller Davis Garcia Lopez Lee Kim Chen Singh Rossi Weber Novak Silva Dubois".split()

CITIES = sorted(set(CAPITALS.values()) | set("""Munich Hamburg Zurich Geneva Milan Naples Venice Florence Barcelona
Seville Porto Lyon Nice Marseille Antwerp Rotterdam Manchester Liverpool Edinburgh Glasgow Boston Chicago Seattle
Denver Dallas Houston Miami Atlanta Toronto Montreal Vancouver Sydney Melbourne Perth Auckland Osaka Kyoto Shanghai
Mumbai Chennai Istanbul Dubai Lagos Casablanca""".split()) | {"New York", "San Francisco", "Los Angeles", "Hong Kong",
                                                            "Cape Town", "Rio de Janeiro", "São Paulo", "Tel Aviv"})

WORDS = """apple river stone cloud tree house bird music paper light water garden window table chair bread coffee
summer winter spring autumn morning evening happy quiet small big fast slow warm cold old new simple bright dark
green mountain ocean forest road bridge letter book story dream night day moon sun star fire wind rain snow cat dog
horse fish lion tiger hello world good friend peace hope time""".split()

EMOJI = ["🙂", "🎉", "🚀", "🌍", "❤️", "👍", "🔥", "🐱", "☕", "🌧️", "⭐", "🍎"]
ACCENTED = ["café", "naïve", "Grüße", "señor", "crème", "Zürich", "Ångström", "façade", "jalapeño", "Übung", "déjà",
            "mañana", "Łódź", "smörgås", "日本", "東京", "привет", "мир", "γειά"]

TOPICS = """quantum physics|the Roman Empire|football|cooking|gardening|the stock market|dinosaurs|black holes|poetry
|chess|the French Revolution|machine learning|photosynthesis|volcanoes|Shakespeare|jazz|the Olympic Games|bitcoin
|climate change|evolution|yoga|the solar system|philosophy|ancient Egypt|airplanes|the human brain|vaccines|painting
|the history of Rome|electric cars|the internet|whales|basketball|Python programming|databases|religion|law|taxes
|the meaning of life|love|space travel|robots|medicine|the ocean|movies""".replace("\n", "").split("|")

OTHER_QUESTIONS = """Who won the last election?|Who wrote Hamlet?|How old is the universe?|What time is it?
|What day is it today?|How tall is Mount Everest?|Who is the president?|What is the speed of light?
|How far away is the sun?|Who painted the Mona Lisa?|What is the best phone?|Where can I buy shoes?
|How do I fix my car?|What should I eat tonight?|Can you book a flight?|Do you like music?|What is love?
|Who invented the telephone?|How many people live in China?|What is the tallest building?|Who is Albert Einstein?
|What is DNA?|How does a computer work?|Why is the sky blue?|When did the war end?|What is your favorite movie?
|Can you see pictures?|Translate good morning into French.|Write a Python function that sorts a list.
|Summarize this article.|What is the price of gold?|How do I learn to swim?|What is the largest animal?
|Who discovered America?|Can you drive a car?|What is 5G?|How deep is the sea?|Which team is the best?
|Is there life on Mars?|What did I do yesterday?|Fix this code.|Write an essay.|Solve this equation.
|What is the population of India?|Who sings this song?|How do birds fly?|What does this word mean?""".replace(
    "\n", "").split("|")

JOKE = "Why did the small model cross the road? Because the large one did not fit through the door."
POEM = "A little light, a little word, a little song that can be heard."
STORY = (
    "Once upon a time there was a small model in a small house. Every day it answered questions as well as it could. "
    "When it did not know an answer, it said so, and everybody was happy."
)

CONDITIONS = ["sunny", "cloudy", "rainy", "windy", "foggy", "snowy", "clear", "stormy", "partly cloudy", "light rain",
              "heavy rain", "overcast", "humid", "dry", "thunderstorms"]
