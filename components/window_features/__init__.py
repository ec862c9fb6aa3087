"""Features over the events before an event: the same numbers from arrays of rows and from one event after another.

What an event sees are the events of its key with a time in (t - window, t), and itself. Events at the same instant see
none of each other: nobody knows which came first, so that neither the order of rows nor that of arrival counts. Sums
are exact and rounded once, to float64, so that they depend on nothing but the events.
"""
