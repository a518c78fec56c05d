#pragma once  // case: P10-R8 clean
extern int shown;
int step(int n);
