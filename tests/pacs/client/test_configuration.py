"""Valid and invalid files of archives, and the errors about them."""

from pathlib import Path

import pytest

from pacs.client.configuration import DEFAULT_TIMEOUT_SECONDS, ArchiveConfig, read_archives
from pacs.errors import ConfigurationError

SECRET = "s3cret-of-the-archive"
URL = 'url = "https://pacs.example.org/dicom-web"\n'


def written(folder: Path, text: str) -> Path:
    file = folder / "archives.toml"
    file.write_text(text)
    return file


def test_each_table_becomes_an_archive_with_paths_beside_the_file(tmp_path: Path) -> None:
    for name in ("password", "token", "client.pem", "client.key", "ca.pem"):
        (tmp_path / name).write_text(SECRET)
    absolute = tmp_path / "token"
    text = f"""
    [main]
    url = "https://pacs.example.org/dicom-web"
    user = "osteon"
    password_file = "password"
    certificate = "client.pem"
    key = "client.key"
    ca = "ca.pem"
    timeout_seconds = 5
    [research-2]
    url = "http://127.0.0.1:8042/dicom-web"
    bearer_file = "{absolute}"
    """
    main, research = read_archives(written(tmp_path, text)).items()
    assert main == (
        "main",
        ArchiveConfig(
            "https://pacs.example.org/dicom-web",
            user="osteon",
            password_file=tmp_path / "password",
            certificate=tmp_path / "client.pem",
            key=tmp_path / "client.key",
            ca=tmp_path / "ca.pem",
            timeout_seconds=5,
        ),
    )
    assert research[0] == "research-2"
    assert research[1].bearer_file == absolute
    assert research[1].timeout_seconds == DEFAULT_TIMEOUT_SECONDS
    assert SECRET not in repr(main) + repr(research)


def test_a_file_without_tables_names_no_archive(tmp_path: Path) -> None:
    assert read_archives(written(tmp_path, "# none yet\n")) == {}


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ('user = "x"\n', ["required field `url`"]),
        (URL + f'password = "{SECRET}"\n', ["unknown key 'password'", "password_file"]),
        (URL + 'timeout_seconds = "5"\n', ["`float`", "timeout_seconds"]),
        (URL + "timeout_seconds = 0\n", ["timeout_seconds"]),
        (URL + "timeout_seconds = nan\n", ["timeout_seconds"]),
        (URL + 'user = "osteon"\n', ["`user` and `password_file` go together"]),
        (URL + 'password_file = "token"\n', ["`user` and `password_file` go together"]),
        (URL + 'user = "a:b"\npassword_file = "token"\n', ["colon"]),
        (URL + 'user = "x"\npassword_file = "token"\nbearer_file = "token"\n', ["not both"]),
        (URL + 'certificate = "token"\n', ["`certificate` and `key` go together"]),
        (URL + 'ca = "nowhere.pem"\n', ["`ca`", "nowhere.pem", "not a file"]),
        (URL + 'bearer_file = ""\n', ["bearer_file", "path"]),
        (URL + "bearer_file = 7\n", ["bearer_file", "path"]),
        ('url = "ftp://pacs.example.org"\n', ["`url`", "https://"]),
        ('url = "http://pacs.example.org:port/"\n', ["`url`", "https://"]),
        ('url = "http://pacs.example.org/?a=b"\n', ["`url`", "query"]),
        (f'url = "http://osteon:{SECRET}@pacs.example.org/"\n', ["`url`", "password_file"]),
        ('url = "http://a/"\ncertificate = "token"\nkey = "token"\n', ["`certificate`", "https"]),
    ],
)
def test_a_wrong_table_is_refused_by_file_table_and_key(table: str, words: list[str], tmp_path: Path) -> None:
    (tmp_path / "token").write_text(SECRET)
    with pytest.raises(ConfigurationError) as caught:
        read_archives(written(tmp_path, f"[main]\n{table}"))
    for word in ["archives.toml", "[main]", *words]:
        assert word in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "word"),
    [("[main\n", "line 1"), (URL, "'url'"), ('["Room 4"]\n' + URL, "'Room 4'"), ("[main]\n[main]\n", "main")],
)
def test_what_is_no_file_of_archives_is_refused_by_name(text: str, word: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"archives\.toml") as caught:
        read_archives(written(tmp_path, text))
    assert word in str(caught.value)


def test_a_missing_file_and_one_of_other_bytes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_archives(tmp_path / "archives.toml")
    (tmp_path / "archives.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="is not TOML"):
        read_archives(tmp_path / "archives.toml")
