string upper ok
