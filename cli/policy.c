/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <stdio.h>

#include "cli/commands.h"
#include "lib/base/os.h"
#include "policy/policy.h"

int command_policy_check(const struct args *args)
{
	const char *name = args->words[0];
	struct policy *policy = NULL;
	enum secpool_error error;
	size_t tenants = 0;
	int fd = open(name, O_RDONLY | O_CLOEXEC | O_NOCTTY);

	error = fd < 0 ? os_error("%s", name) : policy_load_fd(fd, name, &policy);
	os_close(&fd);
	if (error)
		return command_failed(error);
	printf("%s is valid\n", name);
	for (; policy_tenant_name(policy, tenants); tenants++)
		printf("  tenant %s: %s\n", policy_tenant_name(policy, tenants),
			policy_tenant_users(policy, tenants));
	if (tenants == 0)
		puts("  it has no tenant: nobody may use the pool");
	policy_free(policy);
	return STATUS_DONE;
}
