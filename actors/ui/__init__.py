"""The page: what a person sees and does in a browser. Needs the extra `ui`.

    from actors.ui.app import create

Everything it shows comes from the store by the readers of the rooms; everything it does goes through `System`.
"""
