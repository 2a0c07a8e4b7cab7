"""How does this workbook work, which path suits me, and where do I stand?"""
