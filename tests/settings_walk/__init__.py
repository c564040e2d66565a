"""What `test_every_setting.py` walks with: the keys of a recipe, what can be seen of a run, a change for every key."""
