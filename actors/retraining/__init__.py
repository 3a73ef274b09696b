"""From a drift episode's request to one launched retrain: the rules, as values, without Ray, clocks or a store.

| file | decides |
|---|---|
| `gate.py` | whether a request becomes an order now: cooldown, silence, another order, dry run |
| `countdown.py` | how long a cooldown, silence, lease or pause still lasts, whatever the wall clock does |
| `orders.py` | an order's states, its id, and the only ways from one state to the next |
| `lease.py` | who holds an order of the channel |
| `delivery.py` | what an attempt came to, and when the next one is due |
"""
