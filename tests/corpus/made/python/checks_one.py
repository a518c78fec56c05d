"""One check and a half a function."""


class Account:
    def __init__(self, owner):  # case: P10-R5 violation -- three checks in two functions
        assert owner
        self.owner = owner

    def pay(self, amount):
        if amount <= 0:
            raise ValueError("amount")
        assert amount < 1000
        return amount
