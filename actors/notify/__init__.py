"""Notifications: which happenings go to whom and when (`rules`), by which tools (`receivers`), and the actor."""
