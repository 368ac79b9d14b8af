"""Large payloads stay with their owner and are pulled in chunks, on a connection of their own.

A message carries a reference (``codec/reference.py``). The receiver's ``Puller``
asks the ``Owner`` for the payload and grants credit as it comes in (``credit.py``
decides); both use one ``Line``. ``Transfer`` puts the three together.
"""
