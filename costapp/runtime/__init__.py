"""What turns a checkout into a running Costapp: embedded servers, first-start steps, the supervisor.

Uses no Django, so that the supervisor stays small and starts fast; Django runs in the children.
"""
