"""What the report says (`findings`), shows (`plots`) and looks like (`page`, `templates`)."""
