"""Words for everything a scene can contain, most common first."""
from __future__ import annotations

PLACE_WORDS = {
    "forest": ("forest", "woods", "pine forest", "woodland", "forest path", "clearing in the forest", "deep forest",
               "grove"),
    "mountains": ("mountains", "mountain landscape", "mountain valley", "mountain range", "alps", "snowy peaks",
                  "rocky mountains", "alpine landscape"),
    "sea": ("sea", "beach", "ocean", "coast", "sea shore", "seaside", "sandy beach", "shore", "tropical beach"),
    "desert": ("desert", "sand dunes", "sandy desert", "desert with cacti", "dunes", "desert landscape"),
    "meadow": ("meadow", "green field", "grassy hills", "countryside", "field of flowers", "rolling hills",
               "flower meadow", "field", "hills"),
    "city": ("city street", "city", "street", "downtown street", "road in a city", "big city", "avenue",
             "street with houses", "town street"),
    "lake": ("lake", "mountain lake", "calm lake", "lake shore", "lakeside", "pond", "quiet lake"),
    "village": ("village", "small village", "country village", "little town", "hamlet", "village with a church",
                "small town")}
PLURAL = ("mountains", "dunes", "hills", "alps", "woods", "peaks")
BEFORE_PLACE = {"forest": ("in",), "mountains": ("in", "in front of"), "sea": ("by", "at"), "desert": ("in",),
                "meadow": ("in", "on"),
                "city": ("on", "in"), "lake": ("by", "at", "beside"), "village": ("in",)}
TIME_WORDS = {
    "day": ("during the day", "at noon", "in daylight", "at midday", "daytime", "on a bright day", "in the afternoon"),
    "evening": ("at sunset", "in the evening", "at dusk", "golden hour", "in the evening light", "sunset", "evening"),
    "night": ("at night", "by night", "at midnight", "nighttime", "night", "in the dark", "late at night"),
    "dawn": ("at dawn", "at sunrise", "in the early morning", "in the morning", "sunrise", "dawn",
             "in the morning light")}
SEASON_WORDS = {
    "summer": ("in summer", "summer", "in the summer", "summertime", "green"),
    "autumn": ("in autumn", "autumn", "in fall", "with autumn leaves", "fall colors", "autumnal"),
    "winter": ("in winter", "winter", "covered in snow", "snowy", "in the snow", "snow on the ground", "wintry"),
    "spring": ("in spring", "spring", "in springtime", "in bloom", "with blossoms")}
WEATHER_WORDS = {
    "clear": ("clear sky", "blue sky", "sunny", "good weather", "sunshine", "cloudless"),
    "cloudy": ("cloudy", "cloudy sky", "under grey clouds", "overcast", "gray sky", "clouds"),
    "rain": ("rain", "in the rain", "rainy", "raining", "heavy rain", "rainy day", "wet weather"),
    "snow": ("snowfall", "snowing", "falling snow", "snow", "snowstorm", "snowflakes"),
    "fog": ("fog", "in the fog", "foggy", "misty", "mist", "in the mist", "hazy")}
SKY_WORDS = {
    "sun": ("sun in the sky", "bright sun", "with the sun", "sun", "under the sun"),
    "moon": ("moon", "under the moon", "moonlight", "with a moon", "moonlit", "in the moonlight"),
    "stars": ("stars", "starry sky", "under the stars", "stars in the sky", "starlit", "starry night")}
THING_WORDS = {
    "house": ("house", "cottage", "cabin", "home", "farmhouse", "hut"),
    "tree": ("tree", "lone tree", "oak tree"),
    "boat": ("boat", "sailboat", "sailing boat", "ship", "yacht", "sailing ship"),
    "car": ("car", "sports car", "automobile", "old car", "parked car", "sedan"),
    "balloon": ("hot air balloon", "balloon", "hot-air balloon", "air balloon"),
    "tower": ("lighthouse", "tower", "striped lighthouse", "lighthouse tower"),
    "person": ("person", "man", "woman", "figure", "person standing", "girl", "boy", "traveler"),
    "fence": ("fence", "wooden fence", "picket fence", "garden fence"),
    "castle": ("castle", "medieval castle", "fairy tale castle", "fortress", "old castle", "palace"),
    "windmill": ("windmill", "old windmill", "mill", "dutch windmill"),
    "cat": ("cat", "kitten", "sitting cat", "cute cat", "kitty"),
    "dog": ("dog", "puppy", "cute dog", "pet dog", "hound"),
    "horse": ("horse", "pony", "wild horse", "stallion"),
    "tent": ("tent", "camping tent", "camp tent", "tent for camping"),
    "bus": ("bus", "coach", "city bus", "school bus"),
    "bird": ("bird", "flying bird", "bird in flight", "bird in the sky"),
    "airplane": ("airplane", "plane", "aeroplane", "aircraft", "flying plane", "jet"),
    "snowman": ("snowman", "snow man", "cheerful snowman")}
COLOUR_WORDS = {name: (name,) for name in ("white", "orange", "black", "pink", "brown")} | dict(
    red=("red", "red", "red", "bright red", "crimson"), blue=("blue", "blue", "blue", "bright blue"), purple=("purple",
            "purple", "violet"),
                    green=("green", "green", "bright green"), yellow=("yellow", "yellow", "golden"))
CLOTHED = ("{person} in a {colour} coat", "{person} in {colour}", "{person} wearing a {colour} coat",
           "{person} in a {colour} dress",
           "{person} wearing {colour} clothes", "{person} with a {colour} jacket")
SPOT_WORDS = {"left": ("on the left", "at the left", "on the left side", "to the left"),
              "middle": ("in the middle", "in the center", "centered", "in the centre"),
              "right": ("on the right", "at the right", "on the right side", "to the right")}
LOOKS = ("lone", "old", "cute", "sitting", "wild", "parked", "flying", "cheerful", "medieval", "striped", "wooden")
"""Adjectives that go before the colour, as in 'an old red car'."""
SIZE_WORDS = {"big": ("large", "big", "huge"), "small": ("small", "little", "tiny", "distant")}
STYLE_WORDS = {
    "flat": ("illustration", "flat illustration", "vector art", "picture", "drawing", "flat design", "digital art",
             "photo", "cartoon", "landscape"),
    "watercolor": ("watercolor painting", "watercolor", "watercolour", "aquarelle", "watercolour painting",
                   "watercolor sketch"),
    "ink": ("ink sketch", "ink drawing", "sketch", "pen and ink drawing", "black and white sketch", "line drawing",
            "pencil drawing"),
    "pixel": ("pixel art", "8-bit pixel art", "pixelated picture", "8-bit game graphics", "retro game pixel art"),
    "oil": ("oil painting", "painting in oil", "impressionist painting", "oil on canvas", "van gogh painting",
            "thick oil painting")}
FILLERS = ("beautiful", "high quality", "detailed", "masterpiece", "best quality", "4k", "peaceful", "highly detailed",
           "calm", "scenic", "pretty", "wallpaper",
           "artistic", "colorful", "nice view", "dramatic", "atmospheric", "a wide view", "postcard", "concept art")
