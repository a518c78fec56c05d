"""A function that is too long, and one that its docstring only makes long."""


def summary(rows: list[dict]) -> dict:
    """Planted: P10-R4, over 60 lines; lizard too."""
    result = {}
    if any(row.get('sensor') == 0 for row in rows):
        values = [row['value'] for row in rows if row.get('sensor') == 0]
        result['least_0'] = min(values)
        result['most_0'] = max(values)
    if any(row.get('sensor') == 1 for row in rows):
        values = [row['value'] for row in rows if row.get('sensor') == 1]
        result['least_1'] = min(values)
        result['most_1'] = max(values)
    if any(row.get('sensor') == 2 for row in rows):
        values = [row['value'] for row in rows if row.get('sensor') == 2]
        result['least_2'] = min(values)
        result['most_2'] = max(values)
    if any(row.get('sensor') == 3 for row in rows):
        values = [row['value'] for row in rows if row.get('sensor') == 3]
        result['least_3'] = min(values)
        result['most_3'] = max(values)
    if any(row.get('sensor') == 4 for row in rows):
        values = [row['value'] for row in rows if row.get('sensor') == 4]
        result['least_4'] = min(values)
        result['most_4'] = max(values)
    if any(row.get('sensor') == 5 for row in rows):
        values = [row['value'] for row in rows if row.get('sensor') == 5]
        result['least_5'] = min(values)
        result['most_5'] = max(values)
    if any(row.get('sensor') == 6 for row in rows):
        values = [row['value'] for row in rows if row.get('sensor') == 6]
        result['least_6'] = min(values)
        result['most_6'] = max(values)
    if any(row.get('sensor') == 7 for row in rows):
        values = [row['value'] for row in rows if row.get('sensor') == 7]
        result['least_7'] = min(values)
        result['most_7'] = max(values)
    if any(row.get('sensor') == 8 for row in rows):
        values = [row['value'] for row in rows if row.get('sensor') == 8]
        result['least_8'] = min(values)
        result['most_8'] = max(values)
    if any(row.get('sensor') == 9 for row in rows):
        values = [row['value'] for row in rows if row.get('sensor') == 9]
        result['least_9'] = min(values)
        result['most_9'] = max(values)
    if any(row.get('sensor') == 10 for row in rows):
        values = [row['value'] for row in rows if row.get('sensor') == 10]
        result['least_10'] = min(values)
        result['most_10'] = max(values)
    if any(row.get('sensor') == 11 for row in rows):
        values = [row['value'] for row in rows if row.get('sensor') == 11]
        result['least_11'] = min(values)
        result['most_11'] = max(values)
    if any(row.get('sensor') == 12 for row in rows):
        values = [row['value'] for row in rows if row.get('sensor') == 12]
        result['least_12'] = min(values)
        result['most_12'] = max(values)
    if any(row.get('sensor') == 13 for row in rows):
        values = [row['value'] for row in rows if row.get('sensor') == 13]
        result['least_13'] = min(values)
        result['most_13'] = max(values)
    if any(row.get('sensor') == 14 for row in rows):
        values = [row['value'] for row in rows if row.get('sensor') == 14]
        result['least_14'] = min(values)
        result['most_14'] = max(values)
    if any(row.get('sensor') == 15 for row in rows):
        values = [row['value'] for row in rows if row.get('sensor') == 15]
        result['least_15'] = min(values)
        result['most_15'] = max(values)
    return result


def units() -> dict:
    """
    Clean: a long docstring is not a long function.

    Channel 0: volts.
    Channel 1: volts.
    Channel 2: volts.
    Channel 3: volts.
    Channel 4: volts.
    Channel 5: volts.
    Channel 6: volts.
    Channel 7: volts.
    Channel 8: volts.
    Channel 9: volts.
    Channel 10: volts.
    Channel 11: volts.
    Channel 12: volts.
    Channel 13: volts.
    Channel 14: volts.
    Channel 15: volts.
    Channel 16: volts.
    Channel 17: volts.
    Channel 18: volts.
    Channel 19: volts.
    Channel 20: volts.
    Channel 21: volts.
    Channel 22: volts.
    Channel 23: volts.
    Channel 24: volts.
    Channel 25: volts.
    Channel 26: volts.
    Channel 27: volts.
    Channel 28: volts.
    Channel 29: volts.
    Channel 30: volts.
    Channel 31: volts.
    Channel 32: volts.
    Channel 33: volts.
    Channel 34: volts.
    Channel 35: volts.
    Channel 36: volts.
    Channel 37: volts.
    Channel 38: volts.
    Channel 39: volts.
    Channel 40: volts.
    Channel 41: volts.
    Channel 42: volts.
    Channel 43: volts.
    Channel 44: volts.
    Channel 45: volts.
    Channel 46: volts.
    Channel 47: volts.
    Channel 48: volts.
    Channel 49: volts.
    Channel 50: volts.
    Channel 51: volts.
    Channel 52: volts.
    Channel 53: volts.
    Channel 54: volts.
    Channel 55: volts.
    Channel 56: volts.
    Channel 57: volts.
    Channel 58: volts.
    Channel 59: volts.
    """
    return {}
