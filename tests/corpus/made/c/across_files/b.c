#include "parse.h"

int parse_group(const char *s) { return parse_inner(s); }  // case: P10-R1 violation

int parse_start(const char *s) { return parse_value(s); }  // case: P10-R1 clean
