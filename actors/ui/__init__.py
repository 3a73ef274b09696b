"""The page: what a person sees and does in a browser. Needs the extra `ui`.

    from actors.ui.app import create

Everything it shows comes from the store, through the readers of each package; every action goes through `System`.
"""
