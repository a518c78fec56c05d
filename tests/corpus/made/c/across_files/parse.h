#ifndef PARSE_H  // case: P10-R8 clean
#define PARSE_H
int parse_value(const char *s);
int parse_group(const char *s);
int parse_digit(const char *s);
static inline int parse_inner(const char *s) { return *s ? parse_value(s) : parse_digit(s); }  // case: P10-R1 violation
#endif
