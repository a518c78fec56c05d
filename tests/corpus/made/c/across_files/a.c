#include "parse.h"

int parse_value(const char *s) { return *s == '(' ? parse_group(s + 1) : 0; }  // case: P10-R1 violation

int parse_digit(const char *s) { return *s - '0'; }  // case: P10-R1 clean
