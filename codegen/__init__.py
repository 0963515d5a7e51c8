"""Plans to kernels: emission, caches, and the back ends that run them."""
