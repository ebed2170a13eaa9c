/* BOINC's lib/std_fixes.h brings std::min, max and transform to old compilers; here they come
 * from the standard library. */
#ifndef BOINCVM_STD_FIXES_H
#define BOINCVM_STD_FIXES_H

#ifdef __cplusplus
#include <algorithm>
#include <iterator>
#endif
#endif
