"""Whatever comes in is taken or refused with a reason: nothing else is raised, and what was taken is what was sent."""
