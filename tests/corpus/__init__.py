"""Labelled cases for the Power of Ten rules, and what measures the rules by them."""
