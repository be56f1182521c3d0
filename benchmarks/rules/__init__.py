"""The operations of real models above second-order parameters: which have a rule of their own, and at what price."""
