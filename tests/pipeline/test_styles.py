import pytest

from pipeline.errors import InvalidRequest, ModelError, UnknownName
from pipeline.processing import StableDiffusionProcessingImg2Img, expand
from pipeline.styles import MAX_LENGTH, StyleDatabase

CSV = """name,prompt,negative_prompt
frame,"masterpiece, {prompt}, cloudy","blurry, ugly"
plain,white ring,
twice,"{prompt} and {prompt}",
only negative,,noise
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "styles.csv"
    path.write_text(CSV, "utf-8")
    return path


@pytest.fixture
def database(file):
    return StyleDatabase(file)


# applying

@pytest.mark.parametrize("prompt, names, expected", [
    ("a circle", [], "a circle"),
    (" a circle ", [], " a circle "),
    ("a circle", ["frame"], "masterpiece, a circle, cloudy"),
    (" a circle ", ["frame"], "masterpiece,  a circle , cloudy"),
    ("a circle", ["plain"], "a circle, white ring"),
    (" a circle ", ["plain"], "a circle, white ring"),
    ("", ["plain"], "white ring"),
    ("a", ["twice"], "a and a"),
    ("a", ["frame", "plain"], "masterpiece, a, cloudy, white ring"),
    ("a", ["plain", "frame"], "masterpiece, a, white ring, cloudy"),
    ("a", ["plain", "plain"], "a, white ring, white ring"),
    ("a", ["only negative"], "a"),
    (" a ", ["nobody's"], "a"),
])
def test_styles_are_put_around_or_behind_the_prompt_in_their_order(database, prompt, names, expected):
    assert database.apply_styles(prompt, names) == expected


@pytest.mark.parametrize("names, expected", [
    (["frame"], "noisy, blurry, ugly"), (["plain"], "noisy"), (["only negative", "frame"], "noisy, noise, blurry, ugly"),
])
def test_the_negative_prompt_gets_its_own_texts(database, names, expected):
    assert database.apply_negative_styles("noisy", names) == expected


def test_styles_that_double_the_prompt_end_with_a_sentence(database):
    with pytest.raises(InvalidRequest, match=f"styles: the prompt would be longer than {MAX_LENGTH} characters") as caught:
        database.apply_styles("a", ["twice"] * 10_000)
    assert caught.value.field == "styles"


def request(picture, **fields):
    return StableDiffusionProcessingImg2Img(init_images=[picture], **fields)


def test_every_prompt_of_a_job_gets_its_styles_before_comments_are_stripped(picture, file):
    file.write_text('name,prompt,negative_prompt\ns,"{prompt}, b # secret",d\n', "utf-8")
    p = request(picture, prompt="a", negative_prompt="c", styles=["s"], n_iter=2)
    p.style_database = StyleDatabase(file)
    expand(p)
    assert p.all_prompts == ["a, b \n"] * 2
    assert p.all_negative_prompts == ["c, d"] * 2
    assert (p.prompt, p.styles) == ("a", ["s"])


def test_a_request_without_a_style_file_may_still_name_styles(picture):
    p = request(picture, prompt="a", styles=["nope"])
    expand(p)
    assert p.all_prompts == ["a"]


@pytest.mark.parametrize("styles", ["x", [1], [None], {"a": 1}])
def test_styles_must_be_a_list_of_names(picture, styles):
    with pytest.raises(InvalidRequest, match="styles must be a list of names, got"):
        request(picture, styles=styles)


# files

def test_styles_keep_the_order_of_the_file(database):
    assert list(database.styles) == ["frame", "plain", "twice", "only negative"]


@pytest.mark.parametrize("content, expected", [
    ("\ufeffname,prompt,negative_prompt\na,b,c\n", [("a", "b", "c")]),  # Excel's mark
    ("name,text\na,b\n", [("a", "b", "")]),  # A1111's first format
    ("name,prompt\na,b\n", [("a", "b", "")]),
    ("negative_prompt,name,prompt\nc,a,b\n", [("a", "b", "c")]),
    ("name,prompt,negative_prompt\n#a,b,c\nd,e,f\n", [("d", "e", "f")]),  # a comment
    ("name,prompt,negative_prompt\na,b\n\nc\n", [("a", "b", ""), ("c", "", "")]),  # short and empty rows
    ("name,prompt,negative_prompt\na, b, c\n", [("a", "b", "c")]),
    ('name,prompt,negative_prompt\na,"b, ""c""\nd",e\n', [("a", 'b, "c"\nd', "e")]),
    ("name,prompt,negative_prompt\na,b,c\na,d,e\n", [("a", "d", "e")]),
    ("name,prompt,negative_prompt\nüml,日本,c\n", [("üml", "日本", "c")]),
    ("name,prompt,negative_prompt\n", []),
    ("", []),
])
def test_a_file_is_read_as_a1111_reads_it(tmp_path, content, expected):
    path = tmp_path / "styles.csv"
    path.write_text(content, "utf-8")
    assert [(s.name, s.prompt, s.negative_prompt) for s in StyleDatabase(path).styles.values()] == expected


def test_a_missing_file_is_an_empty_one(tmp_path):
    assert StyleDatabase(tmp_path / "none.csv").styles == {}
    assert StyleDatabase().styles == {}


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"one,two\n1,2\n", b"name,prompt\na," + b"x" * 200_000])
def test_what_is_no_styles_file_is_refused_with_a_sentence(tmp_path, content):
    path = tmp_path / "styles.csv"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="cannot be read as styles") as caught:
        StyleDatabase(path)
    assert "\n" not in str(caught.value)


def test_what_is_saved_is_read_again(database, file):
    database.put("new", 'a "b", {prompt}\nc', "ü")
    database.put("plain", "black ring")
    database.save()
    assert file.read_bytes().startswith(b"\xef\xbb\xbfname,prompt,negative_prompt\r\n")
    again = StyleDatabase(file).styles
    assert again == database.styles
    assert list(again) == ["frame", "plain", "twice", "only negative", "new"]
    assert [path.name for path in file.parent.iterdir()] == ["styles.csv"]


def test_a_style_that_is_removed_is_gone_from_the_file(database, file):
    database.remove("frame")
    database.save()
    assert "frame" not in StyleDatabase(file).styles
    with pytest.raises(UnknownName, match="frame"):
        database.remove("frame")


@pytest.mark.parametrize("name", ["", "#comment"])
def test_a_style_that_could_not_be_read_again_is_refused(database, name):
    with pytest.raises(InvalidRequest, match="^name must not be empty or start with"):
        database.put(name, "text")


def test_reload_sees_what_others_have_written(database, file):
    file.write_text("name,prompt\nz,y\n", "utf-8")
    database.reload()
    assert list(database.styles) == ["z"]


@pytest.fixture
def several(tmp_path):
    (tmp_path / "styles.csv").write_text("name,prompt\na,1\nb,2\n", "utf-8")
    (tmp_path / "styles-more.csv").write_text("name,prompt\nc,3\n", "utf-8")
    return StyleDatabase(tmp_path / "styles*.csv")


def test_the_styles_of_several_files_are_divided(several):
    assert list(several.styles) == [" STYLES-MORE ".center(40, "-"), "c", " STYLES ".center(40, "-"), "a", "b"]
    assert several.apply_styles("x", [" STYLES ".center(40, "-")]) == "x"


def test_each_style_is_saved_to_the_file_that_it_is_from(several, tmp_path):
    several.put("c", "4")
    several.put("new", "5")
    several.save()
    assert list(StyleDatabase(tmp_path / "styles-more.csv").styles) == ["c"]
    assert list(StyleDatabase(tmp_path / "styles.csv").styles) == ["a", "b", "new"]


# taking out

@pytest.mark.parametrize("prompt, negative, names, left", [
    ("masterpiece, a circle, cloudy", "blurry, ugly", ["frame"], ("a circle", "")),
    ("masterpiece, a circle, cloudy", "dark, blurry, ugly", ["frame"], ("a circle", "dark")),
    ("masterpiece, a circle, cloudy", "ugly", [], ("masterpiece, a circle, cloudy", "ugly")),  # both must be its
    ("a circle, white ring", "", ["plain"], ("a circle", "")),
    ("masterpiece, a, cloudy, white ring", "blurry, ugly", ["frame", "plain"], ("a", "")),
    ("white ring", "", ["plain"], ("", "")),
    ("a", "rain, noise", ["only negative"], ("a", "rain")),
    ("a and a", "", [], ("a and a", "")),  # where the prompt stood twice cannot be told
])
def test_styles_are_found_in_a_prompt_and_taken_out(database, prompt, negative, names, left):
    assert database.extract(prompt, negative) == (names, *left)


def test_what_is_taken_out_makes_the_same_prompt_again(database):
    for names in ([], ["frame"], ["plain"], ["frame", "plain"], ["frame", "only negative"]):
        made = database.apply_styles("a house", names), database.apply_negative_styles("rain", names)
        found, prompt, negative = database.extract(*made)
        assert (database.apply_styles(prompt, found), database.apply_negative_styles(negative, found)) == made
