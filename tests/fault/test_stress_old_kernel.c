/* SPDX-License-Identifier: Apache-2.0 */
/* The stress of test_stress.c as on a kernel without UFFDIO_MOVE and UFFDIO_POISON (Debian 12's 6.1). timeout: 180 */
#define STRESS_SECONDS 30

#include "lib/uffd.h"

enum secpool_error __real_uffd_open(struct uffd *uffd, int device_fd, unsigned without);
enum secpool_error __wrap_uffd_open(struct uffd *uffd, int device_fd, unsigned without);

enum secpool_error __wrap_uffd_open(struct uffd *uffd, int device_fd, unsigned without)
{
	return __real_uffd_open(uffd, device_fd,
		without | UFFD_WITHOUT_MOVE | UFFD_WITHOUT_POISON | UFFD_WITHOUT_VECTOR);
}

#include "tests/fault/test_stress.c"
