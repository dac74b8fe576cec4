"""The name of what replicas run: the same for gateways that differ in what is theirs alone."""

from service.deployments import revision
from service.settings import Settings


def test_gateways_with_the_same_code_and_settings_deploy_the_same(tmp_path):
    one = Settings(home=tmp_path / "one", port=1, redis_url="redis://one", api_keys="dn_one", replicas=2)
    two = Settings(home=tmp_path / "two", port=2, host="0.0.0.0", ray_address="head:6379", replicas=2)
    assert revision(one) == revision(two)


def test_another_setting_or_other_code_is_another_name(tmp_path):
    settings = Settings(methods_path=str(tmp_path))
    before = revision(settings)
    assert revision(Settings(methods_path=str(tmp_path), precision="bfloat16")) != before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "card.toml").write_text('slug = "mine"')
    added = revision(settings)
    assert added != before
    (tmp_path / "mine" / "card.toml").write_text('slug = "other"')
    assert revision(settings) != added
